"""llama.cpp: the whole kit on tiny GGUF files, and its numbers are those of transformers on the same rows."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText, PreTrainedModel

from aim_backends.llamacpp import library as library_module
from aim_backends.llamacpp.backend import LlamaCppBackend
from aim_backends.llamacpp.context import LlamaContext
from aim_backends.llamacpp.gguf_file import GgufFile
from aim_sdk import AIMPipeline, Demonstration, Query
from aim_sdk.errors import (
    BackendError,
    CorruptArtifactError,
    DeviceError,
    FormatError,
    InputError,
    MissingDependencyError,
    ModelNotFoundError,
    UnsupportedModelError,
)
from aim_sdk.projectors import untrained
from aim_sdk.testing import backend_checks, check_backend
from aim_sdk.testing.tiny import gguf_files


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return gguf_files.build_gguf(tmp_path_factory.mktemp("gguf") / "llava")


@pytest.fixture(scope="session")
def backend(files: tuple[Path, Path]) -> LlamaCppBackend:
    return load(files)


@pytest.fixture(scope="session")
def plain(files: tuple[Path, Path]) -> PreTrainedModel:
    return AutoModelForImageTextToText.from_pretrained(files[0].parent).eval().requires_grad_(False)


@pytest.fixture
def demonstrations(pictures: list[Image.Image]) -> list[Demonstration]:
    answers = ("a lynx", "a fox", "two people on the street")
    return [Demonstration(image, "What is it?", answer) for image, answer in zip(pictures, answers, strict=False)]


def load(files: tuple[Path, Path], **options: Any) -> LlamaCppBackend:
    return LlamaCppBackend.from_pretrained(str(files[0]), **{"mmproj": files[1], "dtype": "float32", **options})


@pytest.mark.parametrize("check", backend_checks())
def test_kit(backend: LlamaCppBackend, check: str) -> None:
    (result,) = check_backend(backend, checks=[check])
    if result.status != "passed":
        pytest.skip(result.message)


def test_what_it_lacks_is_known(backend: LlamaCppBackend) -> None:
    results = check_backend(backend, checks=["identity_beams", "answer_logits"])
    assert {result.status for result in results} == {"not applicable"}


@pytest.fixture
def rows(backend: LlamaCppBackend, demonstrations: list[Demonstration], pictures: list[Image.Image]) -> Tensor:
    """A prompt of 3 demonstrations with their images, and a query."""
    written = backend.injector.rows
    opening = written.embed(written.prompts.opening(backend.default_format))
    shown = written.context(demonstrations, backend.default_format)
    return torch.cat([opening, *shown, *written.queries([Query(pictures[5], "What is it?")], backend.default_format)])


def test_matrices_are_the_checkpoint(backend: LlamaCppBackend, plain: PreTrainedModel) -> None:
    assert torch.equal(backend.vocabulary.inputs, plain.get_input_embeddings().weight)
    assert torch.equal(backend.vocabulary.outputs, plain.get_output_embeddings().weight)


def test_states_are_those_of_transformers(backend: LlamaCppBackend, plain: PreTrainedModel, rows: Tensor) -> None:
    with LlamaContext(backend.model, 1, len(rows), states=True, layers=[1]) as context:
        found = context.states(0, rows)
    theirs = plain.model.language_model(inputs_embeds=rows[None], output_hidden_states=True)
    torch.testing.assert_close(found[1], theirs.hidden_states[1][0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[2], theirs.last_hidden_state[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shots", [0, 1, 3])
def test_answers_are_those_of_transformers(
    backend: LlamaCppBackend,
    plain: PreTrainedModel,
    demonstrations: list[Demonstration],
    pictures: list[Image.Image],
    shots: int,
) -> None:
    """Fused tokens of a trained kind, images of llama.cpp: greedy tokens and log-probabilities."""
    pipe = AIMPipeline(backend, untrained("residual", backend.vocabulary))
    pipe.bank.add(demonstrations[:shots])
    query = Query(pictures[6], "What colour is the car?")
    (answer,) = pipe.generate([query], demonstrations=list(pipe.bank.values()), max_new_tokens=8, log_probs=True)
    written, fused = backend.injector.rows, [entry.fused for entry in pipe.bank.values()]
    opening = written.embed(written.prompts.opening(backend.default_format))
    prompt = [opening, *(item.embeddings for item in fused), *written.queries([query], backend.default_format)]
    ids, logs = greedy(plain, torch.cat(prompt), len(answer.token_ids))
    assert answer.token_ids == tuple(ids)
    assert answer.log_probs == pytest.approx(logs, abs=1e-4)


def greedy(plain: PreTrainedModel, rows: Tensor, count: int) -> tuple[list[int], list[float]]:
    ids: list[int] = []
    logs: list[float] = []
    for _ in range(count):
        state = plain.model.language_model(inputs_embeds=rows[None]).last_hidden_state[0, -1]
        scores = plain.get_output_embeddings()(state).log_softmax(-1)
        ids.append(int(scores.argmax()))
        logs.append(float(scores.max()))
        rows = torch.cat([rows, plain.get_input_embeddings()(torch.tensor(ids[-1:]))])
    return ids, logs


def test_long_prompts_run_in_parts(backend: LlamaCppBackend, plain: PreTrainedModel) -> None:
    rows = backend.vocabulary.inputs[torch.arange(1300) % 400 + 3]
    with LlamaContext(backend.model, 1, 1300, states=True, layers=[1]) as context:
        found = context.states(0, rows)
    theirs = plain.model.language_model(inputs_embeds=rows[None], output_hidden_states=True)
    torch.testing.assert_close(found[1], theirs.hidden_states[1][0], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found[2], theirs.last_hidden_state[0], rtol=1e-3, atol=1e-3)


def test_layers_are_side_by_side(backend: LlamaCppBackend, demonstrations: list[Demonstration]) -> None:
    """Any order, counted from both ends; layer 0 is what enters."""
    chat = backend.default_format
    (several,) = backend.reader.read(demonstrations[:1], prompt_format=chat, layers=[-1, 0, 1])
    each = [backend.reader.read(demonstrations[:1], prompt_format=chat, layers=[n])[0].hidden for n in (2, -3, -2)]
    assert torch.equal(several.hidden, torch.cat(each, -1))
    assert torch.equal(each[1], several.embeddings)
    with pytest.raises(InputError, match="2 decoder layers"):
        backend.reader.read(demonstrations, prompt_format=chat, layers=[3])


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=40))
def test_text_comes_back(backend: LlamaCppBackend, text: str) -> None:
    tokens = backend.model.tokens
    if not any(special in text for special in tokens.special_tokens.values()):
        assert tokens.decode(tokens.tokenize(text)) == text


def test_format_is_the_chat_template(backend: LlamaCppBackend) -> None:
    assert backend.default_format.template == "USER: {image}\n{text} ASSISTANT: {answer}</s>"
    with pytest.raises(FormatError, match="special token '</s>'"):
        AIMPipeline(backend, untrained("residual", backend.vocabulary)).bank.add(
            [Demonstration(Image.new("RGB", (9, 9)), "What?", "a</s>b")]
        )


def test_a_bank_outlives_the_process(
    files: tuple[Path, Path], demonstrations: list[Demonstration], pictures: list[Image.Image], tmp_path: Path
) -> None:
    names: dict[str, Any] = {"model": str(files[0]), "projector": "residual"}
    first = AIMPipeline.from_pretrained("llama.cpp", bank=tmp_path / "bank", **names)
    first.bank.add(demonstrations)
    expected = first(pictures[7], "What is it?", shots=2)
    again = AIMPipeline.from_pretrained("llama.cpp", bank=tmp_path / "bank", **names)
    assert again(pictures[7], "What is it?", shots=2) == expected


def test_another_file_is_another_backbone(files: tuple[Path, Path], tmp_path: Path) -> None:
    """One number of one layer differs."""
    model, images = (Path(shutil.copy(file, tmp_path)) for file in files)
    data = bytearray(model.read_bytes())
    tensor = next(t for t in gguf.GGUFReader(model).tensors if t.name == "blk.1.ffn_up.weight")
    data[tensor.data_offset : tensor.data_offset + 4 * 512] = np.ones(512, np.float32).tobytes()
    model.write_bytes(data)
    assert "weights_hash" in load((model, images)).fingerprint.differences(load(files).fingerprint)


def test_bad_options(files: tuple[Path, Path], tmp_path: Path) -> None:
    model, images = files
    with pytest.raises(InputError, match=r"needs two files.*Or model='pocket'"):
        LlamaCppBackend.from_pretrained()
    alone = shutil.copy(model, tmp_path / "alone.gguf")
    with pytest.raises(InputError, match=r"alone\.gguf.*none is there"):
        LlamaCppBackend.from_pretrained(alone)
    for name in ("mmproj-f16.gguf", "mmproj-f32.gguf"):
        shutil.copy(images, tmp_path / name)
    with pytest.raises(InputError, match=r"2 are there: mmproj-f16\.gguf, mmproj-f32\.gguf"):
        LlamaCppBackend.from_pretrained(alone)
    with pytest.raises(InputError, match="takes no option 'n_ctx'"):
        load(files, n_ctx=4)
    for device in ("meta", "banana"):
        with pytest.raises(DeviceError, match=device):
            load(files, device=device)
    with pytest.raises(DeviceError, match="built for the CPU alone"):
        load(files, gpu_layers=99)
    with pytest.raises(InputError, match="512 at most"):
        load(files, threads=100_000)
    with pytest.raises(InputError, match="encoded by torch"):
        LlamaCppBackend.from_pretrained("pocket", mmproj=images)
    for missing in (tmp_path / "none.gguf", tmp_path, ""):
        with pytest.raises(ModelNotFoundError, match=r"there is no such file|a folder"):
            LlamaCppBackend.from_pretrained(str(missing))
    with pytest.raises(InputError, match="threads"):
        load(files, threads=0)
    with pytest.raises(ModelNotFoundError, match="no such file"):
        load((tmp_path / "none.gguf", images))
    with pytest.raises(ModelNotFoundError, match="mmproj"):
        load((model, tmp_path / "none.gguf"))


def test_bad_files(files: tuple[Path, Path], tmp_path: Path) -> None:
    model, images = files
    (tmp_path / "text.gguf").write_text("not a model")
    for cut in (0, 5, 400, 30_000):
        (tmp_path / "cut.gguf").write_bytes(model.read_bytes()[:cut])
        with pytest.raises(CorruptArtifactError, match=r"cut\.gguf"):
            load((tmp_path / "cut.gguf", images))
    with pytest.raises(CorruptArtifactError, match=r"text\.gguf"):
        load((tmp_path / "text.gguf", images))
    with pytest.raises((BackendError, CorruptArtifactError)):
        load((images, images))
    with pytest.raises(CorruptArtifactError, match=r"text\.gguf"):
        load((model, tmp_path / "text.gguf"))
    with pytest.raises(CorruptArtifactError) as raised:
        load((tmp_path / "text.gguf", images))
    assert "cut.gguf" not in str(raised.value)
    with pytest.raises(CorruptArtifactError, match=r"projector of\s+the same checkpoint|same checkpoint"):
        load((model, model))


def test_positions_of_several_dimensions_are_refused(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GGUF of the architecture of Qwen2-VL."""
    write, describe = gguf_files._write, gguf_files._describe

    def written(path: Path, architecture: str, tensors: dict[str, np.ndarray], how: object) -> None:
        if architecture == "llama":
            architecture = "qwen2vl"
            for name in [
                name for name in tensors if name.endswith(("attn_q.weight", "attn_k.weight", "attn_v.weight"))
            ]:
                tensors[name.replace("weight", "bias")] = np.zeros(len(tensors[name]), np.float32)
        write(path, architecture, tensors, how)

    def described(writer: gguf.GGUFWriter, config: object, folder: Path) -> None:
        describe(writer, config, folder)
        writer.add_rope_dimension_sections([2, 1, 1, 0])

    monkeypatch.setattr(gguf_files, "_write", written)
    monkeypatch.setattr(gguf_files, "_describe", described)
    with pytest.raises(UnsupportedModelError, match=r"M-RoPE.*\n.*qwen-vl"):
        load(gguf_files.build_gguf(tmp_path / "qwen"))


def test_a_model_that_scales_its_embeddings_is_refused(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    matrix = GgufFile.matrix

    def scaled(file: GgufFile, name: str, width: int) -> Tensor | None:
        found = matrix(file, name, width)
        return found * width**0.5 if found is not None and name == "token_embd.weight" else found

    monkeypatch.setattr(GgufFile, "matrix", scaled)
    with pytest.raises(UnsupportedModelError, match="as Gemma does"):
        load(files)


def test_another_version_of_the_library_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(library_module._DEFAULTS, "n_batch", 4096)
    library_module.library.cache_clear()
    try:
        with pytest.raises(MissingDependencyError, match=r"lays its parameters out differently.*tested with"):
            library_module.library()
    finally:
        monkeypatch.undo()
        library_module.library.cache_clear()


def test_choices_that_spell_special_tokens_are_refused(backend: LlamaCppBackend) -> None:
    pipe = AIMPipeline(backend, untrained("residual", backend.vocabulary))
    with pytest.raises(FormatError, match="special token '<s>'"):
        pipe(Image.new("RGB", (9, 9)), "What?", shots=0, choices=["<s>", "red"])


def test_a_batch_over_the_librarys_limit_is_refused(backend: LlamaCppBackend, pictures: list[Image.Image]) -> None:
    queries, form = [Query(pictures[0], "What?")] * 257, backend.default_format
    with pytest.raises(InputError, match=r"257 prompts at a time; .* at most 256\.\nNext: batch_size=256"):
        backend.injector.generate(queries, [[]] * 257, prompt_format=form, max_new_tokens=1)


def test_a_forked_process_is_told(backend: LlamaCppBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend.model, "process", 1)
    pipe = AIMPipeline(backend, untrained("residual", backend.vocabulary))
    with pytest.raises(BackendError, match="load it in each process"):
        pipe(Image.new("RGB", (9, 9)), "What?", shots=0)


def test_nothing_is_left_after_an_error(backend: LlamaCppBackend, pictures: list[Image.Image]) -> None:
    """A query that cannot be used names itself, and the next call works."""
    pipe = AIMPipeline(backend, untrained("residual", backend.vocabulary))
    queries: Sequence[Query] = [Query(pictures[0], "What?"), Query("missing.png", "What?")]
    with pytest.raises(InputError) as raised:
        backend.injector.generate(queries, [[], []], prompt_format=backend.default_format, max_new_tokens=2)
    assert raised.value.query == 1
    assert isinstance(pipe(pictures[0], "What?", shots=0), str)
