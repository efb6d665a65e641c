"""What a recipe says of its needs is what is computed, and what is computed agrees with the models."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoConfig, AutoModelForImageTextToText

from aim_sdk import Demonstration, FusedTokens, Query, get_backend
from aim_sdk.backend.capabilities import RunsInTorch, Trainable, capability
from aim_sdk.evaluation import EvalSettings
from aim_sdk.files.yaml_files import read_yaml
from benchmarks.recipes import estimate
from benchmarks.recipes.backbones import BACKBONES, Decoder
from benchmarks.recipes.formula import CARDS, kept_by_layer
from tests.unit.test_project_files import ROOT

PAGE = ROOT / "docs" / "how-to" / "train-for-a-real-backbone.md"
TINY = {
    "llava-1.5-7b": "llava-1.5",
    "llava-next-7b": "llava-next",
    "llava-onevision-7b": "llava-onevision",
    "qwen2.5-vl-7b": "qwen2.5-vl",
    "qwen3-vl-8b": "qwen3-vl",
    "idefics2-8b": "idefics2",
    "smolvlm-500m": "smolvlm",
    "internvl3-8b": "internvl",
}
"""Each recipe's family as a tiny model."""
DEFAULT = "llava-1.5-7b"
ONE_AND_SLOW = [name if name == DEFAULT else pytest.param(name, marks=pytest.mark.slow) for name in TINY]


def source(name: str) -> str:
    return (estimate.FOLDER / f"{name}.yaml").read_text()


def test_every_backbone_has_a_recipe() -> None:
    files = {file.stem for file in estimate.FOLDER.glob("*.yaml")}
    assert files == {*BACKBONES, "evaluation"} == {*TINY, "evaluation"}


@pytest.mark.parametrize("name", BACKBONES)
def test_a_recipe_quotes_what_is_computed(name: str) -> None:
    quoted = "\n".join(f"# {line}" for line in estimate.quoted(name))
    assert quoted in source(name), f"benchmarks/recipes/{name}.yaml should say:\n{quoted}"


@pytest.mark.parametrize("name", BACKBONES)
def test_a_recipe_is_for_an_80_gb_card_and_can_be_for_a_24_gb_one(name: str) -> None:
    run = estimate.run_of(name, estimate.load(name))
    small, large = (estimate.suited(run, card) for card in CARDS)
    assert large.run == run
    assert small.fits
    assert small.run.episodes == run.episodes
    assert run.longest <= run.backbone.decoder.context


@pytest.mark.parametrize("name", BACKBONES)
def test_a_recipe_names_its_three_commands(name: str) -> None:
    text = source(name).replace("# ", "").replace("\\\n", "")
    config = estimate.load(name)
    run = f"runs/{name}"
    assert config.model == BACKBONES[name].model
    assert config.output == Path(run)
    assert f"aim-icl train benchmarks/recipes/{name}.yaml\n" in text
    words = " ".join(text.split())
    evaluation = f"benchmarks/recipes/evaluation.yaml model={config.model} projector={run}/projector"
    assert f"aim-icl eval run {evaluation} output={run}/evaluation" in words
    assert f"hf upload YOU/aim-{name} {run}/projector\n" in text


def test_recipes_differ_only_in_what_depends_on_the_backbone() -> None:
    own = {"output", "backend", "model", "batch_size", "batches_per_step", "recompute_activations"}
    shared = []
    for name in BACKBONES:
        settings = estimate.load(name).model_dump(exclude=own)
        assert settings["projector"].pop("layers") == (round(0.8 * BACKBONES[name].decoder.layers), -1)
        assert settings["objective"].pop("teacher") == (
            "captions" if name in ("llava-1.5-7b", "llava-next-7b") else "interleaved"
        )
        shared.append(settings)
    assert all(settings == shared[0] for settings in shared)


def test_the_table_has_every_recipe_in_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    estimate.main([])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines[2 : 2 + len(BACKBONES)]] == list(BACKBONES)
    estimate.main(["smolvlm-500m"])
    assert "\n".join(estimate.quoted("smolvlm-500m")) in capsys.readouterr().out


def test_the_page_shows_the_computed_table() -> None:
    assert estimate.markdown() in PAGE.read_text(), f"{PAGE}: next: python -m benchmarks.recipes.estimate --markdown"


def test_the_evaluation_takes_any_projector() -> None:
    file = estimate.FOLDER / "evaluation.yaml"
    settings = read_yaml(file, EvalSettings, ["model=me/model", "projector=me/projector", "output=runs/mine"])
    assert (settings.backend, settings.model, settings.projector) == ("auto", "me/model", "me/projector")
    families = {re.sub("-.*", "", task) for task in settings.tasks or ()}
    assert families == {"vl", "okvqa", "vizwiz"}


# --- the sizes, and the bytes that autograd keeps

_CLIP = {"model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096, "image_size": 336}
_CLIP |= {"num_hidden_layers": 24, "num_attention_heads": 16, "patch_size": 14, "projection_dim": 768}
_SIGLIP: dict[str, Any] = {"hidden_size": 1152, "intermediate_size": 4304, "num_attention_heads": 16, "patch_size": 14}
_VISION: dict[str, dict[str, Any]] = {
    "llava-1.5-7b": _CLIP,
    "llava-next-7b": _CLIP,
    "llava-onevision-7b": _SIGLIP
    | {"model_type": "siglip_vision_model", "num_hidden_layers": 26, "image_size": 384, "vision_use_head": False},
    "qwen2.5-vl-7b": {"hidden_size": 1280, "intermediate_size": 3420, "depth": 32, "out_hidden_size": 3584},
    "qwen3-vl-8b": {"hidden_size": 1152, "intermediate_size": 4304, "depth": 27, "out_hidden_size": 4096}
    | {"deepstack_visual_indexes": [8, 16, 24]},
    "idefics2-8b": _SIGLIP | {"num_hidden_layers": 27, "image_size": 980},
    "smolvlm-500m": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}
    | {"num_attention_heads": 12, "image_size": 512, "patch_size": 16},
    "internvl3-8b": {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24}
    | {"num_attention_heads": 16, "image_size": [448, 448], "patch_size": [14, 14]},
}
_LLM = {
    "llava-1.5-7b": "llama",
    "llava-next-7b": "mistral",
    "llava-onevision-7b": "qwen2",
    "idefics2-8b": "mistral",
    "smolvlm-500m": "llama",
    "internvl3-8b": "qwen2",
}
_TYPE = {"llava-1.5-7b": "llava", "llava-next-7b": "llava_next", "llava-onevision-7b": "llava_onevision"}
_TYPE |= {"qwen2.5-vl-7b": "qwen2_5_vl", "qwen3-vl-8b": "qwen3_vl", "idefics2-8b": "idefics2"}
_TYPE |= {"smolvlm-500m": "smolvlm", "internvl3-8b": "internvl"}
_MORE: dict[str, dict[str, Any]] = {
    "idefics2-8b": {"perceiver_config": {"hidden_size": 4096}},
    "smolvlm-500m": {"scale_factor": 4},
    "internvl3-8b": {"tie_word_embeddings": False},
}


@pytest.mark.parametrize("name", ONE_AND_SLOW)
def test_the_sizes_are_those_of_the_model(name: str) -> None:
    backbone = BACKBONES[name]
    sizes = backbone.decoder
    text = {
        "hidden_size": sizes.hidden,
        "intermediate_size": sizes.inner,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": sizes.key_value_heads,
        "head_dim": sizes.head,
        "vocab_size": sizes.vocabulary,
        **({"model_type": _LLM[name]} if name in _LLM else {}),
    }
    config = AutoConfig.for_model(_TYPE[name], text_config=text, vision_config=_VISION[name], **_MORE.get(name, {}))
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    named = dict(model.named_parameters())
    assert sum(parameter.numel() for parameter in named.values()) == backbone.parameters
    vision = re.compile(r"(vision|visual).*(layers|blocks|encoder\.layer)\.\d")
    assert sum(p.numel() for name, p in named.items() if vision.search(name)) == backbone.tower.weights
    layer = re.compile(r"(language|text)_model\.layers\.")
    matrices = sum(p.numel() for name, p in named.items() if layer.search(name) and p.ndim == 2)
    assert matrices == sizes.weights


@pytest.mark.parametrize("name", ONE_AND_SLOW)
def test_a_layer_keeps_what_the_formula_says(name: str, tiny: Callable[[str], Path]) -> None:
    """Two padded batches that differ in length only: what autograd keeps differs by what all layers keep."""
    backend = get_backend("auto").from_pretrained(str(tiny(TINY[name])), device="cpu", dtype="bfloat16")
    (model,) = capability(backend, RunsInTorch).modules
    config = model.config.get_text_config()
    decoder = Decoder(
        config.num_hidden_layers,
        config.hidden_size,
        config.intermediate_size,
        config.num_attention_heads,
        config.num_key_value_heads,
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        vocabulary=0,
        context=0,
        normed_heads=BACKBONES[name].decoder.normed_heads,
    )
    (short, few), (long, many) = (_kept(backend, model, characters) for characters in (60, 160))
    computed = decoder.layers * (kept_by_layer(decoder, long) - kept_by_layer(decoder, short))
    measured = (many - few) / 2
    # Besides: the final norm's input, the embeddings, and numbers of single positions and heads.
    assert 0 <= measured - computed <= (long - short) * (8 * decoder.hidden + 64 * decoder.layers)


def _kept(backend: Any, model: torch.nn.Module, characters: int) -> tuple[int, int]:
    """Positions of a row, and the bytes that autograd keeps of a batch of two."""
    form, blank = backend.default_format, Image.new("RGB", (40, 32))
    contexts = []
    for number in (characters, characters // 2):
        texts = backend.reader.text_only([Demonstration(blank, "x" * number, "yes")], prompt_format=form)
        contexts.append([FusedTokens(text.embeddings.clone().requires_grad_()) for text in texts])
    trainable = capability(backend, Trainable)
    queries = [Query(blank, "What?")] * 2
    prepared = trainable.prepare_answers(queries, ["a cat"] * 2, prompt_format=form, ended=True)
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        trainable.answer_logits(prepared, contexts)
    hidden = model.config.get_text_config().hidden_size
    longest = max(t.shape[1] for t in kept.values() if t.ndim == 3 and t.shape[0] == 2 and t.shape[2] == hidden)
    return longest, sum(t.untyped_storage().nbytes() for key, t in kept.items() if key not in own)
