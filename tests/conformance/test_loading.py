"""What can go wrong while a backbone is loaded, said in one sentence each."""

import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import T5Config

from aim_backends.auto import AutoBackend
from aim_backends.hf import TransformersBackend
from aim_backends.idefics import IdeficsBackend
from aim_backends.llava import LlavaBackend
from aim_backends.qwen_vl import QwenVLBackend
from aim_sdk.errors import (
    CorruptArtifactError,
    DeviceError,
    InputError,
    ModelNotFoundError,
    UnsupportedModelError,
)
from tests.conformance.families import DEMONSTRATIONS, Family


@pytest.fixture
def checkpoint(tiny: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy that may be broken."""
    return Path(shutil.copytree(tiny("llava-1.5"), tmp_path / "my-llava"))


def test_a_family_loads_frozen(family: Family) -> None:
    backend = family.backend
    assert not backend.model.training
    assert not any(parameter.requires_grad for parameter in backend.model.parameters())
    assert isinstance(backend, type(AutoBackend.from_pretrained(str(family.folder), device="cpu")))
    inputs, outputs = backend.vocabulary.inputs, backend.vocabulary.outputs
    assert inputs.shape == (backend.backbone.rows, backend.backbone.embedding_size)
    assert torch.equal(inputs[[5, 7]], backend.backbone.embed([5, 7]))
    assert len(outputs) <= backend.backbone.rows


def test_the_fingerprint_is_stable_and_tells_backbones_apart(family: Family, llava: TransformersBackend) -> None:
    backend = family.backend
    again = type(backend).from_pretrained(str(family.folder), device="cpu", dtype="float32")
    again.reader.read(DEMONSTRATIONS, prompt_format=again.default_format)  # padding is tokenizer state
    assert again.fingerprint == backend.fingerprint
    assert backend.fingerprint.weights_hash is not None
    assert backend.fingerprint.model == family.variant
    half = type(backend).from_pretrained(str(family.folder), device="cpu", dtype=torch.bfloat16)
    assert not half.fingerprint.differences(backend.fingerprint)
    if family.variant != "llava-1.5":
        assert "embedding_hash" in backend.fingerprint.differences(llava.fingerprint)


def test_gemmas_embeddings_are_measured_behind_their_scale(tiny: Callable[[str], Path]) -> None:
    backend = AutoBackend.from_pretrained(str(tiny("gemma3")), device="cpu")
    weight = backend.model.get_input_embeddings().weight
    assert backend.fingerprint.embedding_rms > 4 * float(weight.square().mean().sqrt())


def test_the_default_projector_warns_that_nobody_trained_it(llava: TransformersBackend) -> None:
    with pytest.warns(UserWarning, match="projector="):
        projector = llava.default_projector()
    fused = projector.project(llava.reader.read(DEMONSTRATIONS, prompt_format=llava.default_format))
    assert [len(item) for item in fused] == [
        len(item) for item in llava.reader.text_only(DEMONSTRATIONS, prompt_format=llava.default_format)
    ]


def test_a_missing_folder_names_its_neighbours(checkpoint: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="Did you mean 'my-llava'"):
        LlavaBackend.from_pretrained(str(checkpoint.with_name("my-lava")))
    with pytest.raises(ModelNotFoundError, match="does not exist either"):
        LlavaBackend.from_pretrained(str(checkpoint / "no" / "such"))
    with pytest.raises(ModelNotFoundError, match="is a file"):
        LlavaBackend.from_pretrained(str(checkpoint / "config.json"))


def test_a_folder_without_a_checkpoint_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ModelNotFoundError, match=r"no config\.json.*notes\.txt"):
        LlavaBackend.from_pretrained(str(tmp_path))


def test_an_unreachable_hub_says_how_to_pass_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelNotFoundError, match="pass a local folder"):
        LlavaBackend.from_pretrained("some-org/no-such-model", local_files_only=True)


def test_auto_needs_a_model() -> None:
    with pytest.raises(InputError, match="pass model="):
        AutoBackend.from_pretrained()


def test_the_wrong_family_names_the_right_one(tiny: Callable[[str], Path]) -> None:
    with pytest.raises(UnsupportedModelError, match=r"'qwen2_vl' .* 'llava'.*llava_next(.|\n)*'qwen-vl'"):
        LlavaBackend.from_pretrained(str(tiny("qwen2-vl")))
    with pytest.raises(UnsupportedModelError, match=r"'idefics3'(.|\n)*use backend 'idefics'"):
        QwenVLBackend.from_pretrained(str(tiny("idefics3")))
    with pytest.raises(UnsupportedModelError, match=r"'internvl'(.|\n)*use backend 'auto'"):
        IdeficsBackend.from_pretrained(str(tiny("internvl")))


def _config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_models_without_a_causal_multimodal_decoder_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    T5Config(vocab_size=8).save_pretrained(tmp_path / "t5")
    with pytest.raises(UnsupportedModelError, match="encoder-decoder"):
        AutoBackend.from_pretrained(str(tmp_path / "t5"))
    for kind, reason in (("florence2", "encoder-decoder"), ("llama", "image-text-to-text"), ("nonesuch", "knows no")):
        (checkpoint / "config.json").write_text(json.dumps({"model_type": kind}))
        with pytest.raises(UnsupportedModelError, match=reason):
            AutoBackend.from_pretrained(str(checkpoint))


def test_blip2_is_refused_by_its_lm(checkpoint: Path) -> None:
    (checkpoint / "config.json").write_text(json.dumps({"model_type": "blip-2", "text_config": {"model_type": "t5"}}))
    with pytest.raises(UnsupportedModelError, match="encoder-decoder"):
        AutoBackend.from_pretrained(str(checkpoint))


@pytest.mark.parametrize("content", ["{", "[]", '{"a": 1}', "\x00\xff"])
def test_a_broken_config_is_named(checkpoint: Path, content: str) -> None:
    (checkpoint / "config.json").write_text(content)
    with pytest.raises(CorruptArtifactError, match=r"config\.json"):
        LlavaBackend.from_pretrained(str(checkpoint))


def test_a_config_with_wrong_values_is_named(checkpoint: Path) -> None:
    _config(checkpoint, text_config={"model_type": "llama", "hidden_size": "wide"})
    with pytest.raises(CorruptArtifactError, match=r"config\.json"):
        LlavaBackend.from_pretrained(str(checkpoint))


@pytest.mark.parametrize("name", ["tokenizer.json", "processor_config.json"])
def test_a_broken_processor_is_named(checkpoint: Path, name: str) -> None:
    (checkpoint / name).write_text("{")
    with pytest.raises(CorruptArtifactError, match="processor"):
        LlavaBackend.from_pretrained(str(checkpoint))


def test_a_processor_without_the_size_of_a_patch_is_named_with_the_option(checkpoint: Path) -> None:
    path = checkpoint / "processor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"patch_size": None}))
    with pytest.raises(CorruptArtifactError, match=r"does not say its patch_size.*\nNext: pass processor_options"):
        LlavaBackend.from_pretrained(str(checkpoint))


def test_cut_weights_are_named(checkpoint: Path) -> None:
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CorruptArtifactError, match="weights file"):
        LlavaBackend.from_pretrained(str(checkpoint))


def test_missing_weights_are_never_random(checkpoint: Path) -> None:
    weights = load_file(checkpoint / "model.safetensors")
    gone = next(name for name in weights if "q_proj" in name)
    save_file(
        {name: value for name, value in weights.items() if name != gone},
        checkpoint / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(CorruptArtifactError, match="1 weights are missing"):
        LlavaBackend.from_pretrained(str(checkpoint))


def test_weights_of_another_size_are_named(checkpoint: Path) -> None:
    text = json.loads((checkpoint / "config.json").read_text())["text_config"]
    _config(checkpoint, text_config=text | {"intermediate_size": 48})
    with pytest.raises(CorruptArtifactError, match="do not fit"):
        LlavaBackend.from_pretrained(str(checkpoint))


def test_no_weights_are_named(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(ModelNotFoundError, match="weights"):
        LlavaBackend.from_pretrained(str(checkpoint))


def test_devices_and_dtypes_are_checked_before_anything_is_read(tmp_path: Path) -> None:
    for options, hint in (
        ({"dtype": "bfloat15"}, "bfloat16"),
        ({"dtype": torch.int8}, "float32"),
        ({"device": "cpu:x"}, "cpu"),
        ({"device": "gpu"}, "cpu"),
        ({"device": f"cuda:{torch.cuda.device_count()}"}, "This machine has: cpu"),
    ):
        with pytest.raises(DeviceError, match=hint):
            LlavaBackend.from_pretrained(str(tmp_path), **options)


def test_options_reach_transformers(checkpoint: Path) -> None:
    backend = LlavaBackend.from_pretrained(
        str(checkpoint),
        device="cpu",
        dtype="bfloat16",
        attn_implementation="eager",
        processor_options={"num_additional_image_tokens": 1},
    )
    assert backend.model.dtype == torch.bfloat16
    assert backend.model.config.get_text_config()._attn_implementation == "eager"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (reading, *_) = backend.reader.read(DEMONSTRATIONS, prompt_format=backend.default_format)
    assert reading.hidden.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda folder: (folder / "config.json").write_text("[" * 100_000), r"config\.json is cut or malformed"),
        (lambda folder: os.truncate(folder / "config.json", 2**30), "1,073,741,824 bytes; expected at most"),
        (lambda folder: os.truncate(folder / "tokenizer.json", 2**40), r"tokenizer\.json has"),
        (lambda folder: os.mkfifo(folder / "preprocessor_config.json"), "not a regular file"),
        (lambda folder: _config(folder, text_config={"num_hidden_layers": 10**9}), "num_hidden_layers is 1,000,000"),
        (lambda folder: _config(folder, vision_config={"depth": 10**7}), "depth is 10,000,000"),
    ],
)
def test_a_folder_that_would_hang_or_fill_the_memory_is_refused(
    checkpoint: Path, write: Callable[[Path], object], message: str
) -> None:
    write(checkpoint)
    with pytest.raises(CorruptArtifactError, match=message):
        LlavaBackend.from_pretrained(str(checkpoint))


@pytest.mark.parametrize("sizes", [{"hidden_size": 10**9}, {"vocab_size": 10**9}, {"intermediate_size": 2**40}])
def test_sizes_that_no_weights_have_are_refused_without_their_memory(checkpoint: Path, sizes: dict[str, int]) -> None:
    text = json.loads((checkpoint / "config.json").read_text())["text_config"]
    _config(checkpoint, text_config=text | sizes)
    with pytest.raises(CorruptArtifactError, match=r"do not fit|describe"):
        LlavaBackend.from_pretrained(str(checkpoint))


def test_linked_files_load(checkpoint: Path, tmp_path: Path) -> None:
    """As the hub's cache keeps them."""
    linked = tmp_path / "linked"
    linked.mkdir()
    for item in checkpoint.iterdir():
        (linked / item.name).symlink_to(item)
    LlavaBackend.from_pretrained(str(linked), device="cpu")
