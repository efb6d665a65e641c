"""A real vLLM server: the tokens and log-probabilities are those of transformers on the same prompts, or an error."""

import re
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import httpx2
import pytest
import torch
from PIL import Image

from aim_backends.auto import AutoBackend
from aim_backends.hf.backend import TransformersBackend
from aim_backends.vllm.backend import VllmBackend
from aim_sdk import AIMPipeline, Demonstration, FusedTokens, PromptFormat, Query
from aim_sdk.errors import (
    BackendError,
    CapabilityError,
    ContextLengthError,
    ImageError,
    InputError,
)
from aim_sdk.projectors import untrained
from aim_sdk.serving.settings import ServeSettings
from aim_sdk.testing import check_backend
from tests.servers import conversation, events, token_ids
from tests.servers import serving as serving_pipeline
from tests.unit.test_project_files import ROOT, blocks
from tests.vllm_servers import FLAGS, build_served, needs_vllm, serving

pytestmark = [pytest.mark.slow, needs_vllm(), pytest.mark.xdist_group("vllm")]
VARIANTS = ("llava-1.5", "qwen2.5-vl")
PLAIN = PromptFormat.plain("{image}Question: {text} Short answer:{answer}\n")
ANSWERS = ("a lynx", "a fox", "two people on the street", "a red car", "an owl", "a bee", "a cow", "a small pig")


@pytest.fixture(scope="module", params=VARIANTS)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[TransformersBackend, VllmBackend]]:
    """The same checkpoint by both engines."""
    folder = tmp_path_factory.mktemp("vllm")
    local = AutoBackend.from_pretrained(str(build_served(request.param, folder / request.param)), device="cpu")
    with serving(folder / request.param, *FLAGS, log=folder / "log") as (url, _):
        yield local, VllmBackend.from_pretrained(base_url=url, reader=local)


@pytest.fixture
def pipes(
    pair: tuple[TransformersBackend, VllmBackend], pictures: list[Image.Image]
) -> tuple[AIMPipeline, AIMPipeline]:
    """The same demonstrations and projector for both."""
    local, served = pair
    projector = untrained("residual", local.vocabulary)
    made = AIMPipeline(local, projector), AIMPipeline(served, projector)
    for pipe in made:
        pipe.bank.add(demonstrations(pictures))
    return made


def demonstrations(pictures: Sequence[Image.Image]) -> list[Demonstration]:
    return [Demonstration(image, "What is it?", answer) for image, answer in zip(pictures, ANSWERS, strict=False)]


def queries(pictures: Sequence[Image.Image]) -> list[Query]:
    return [
        Query(picture.rotate(90), text)
        for picture, text in zip(pictures, ["What is this?", "Which colour has it?", "Why?"], strict=False)
    ]


def test_kit(pair: tuple[TransformersBackend, VllmBackend]) -> None:
    """What reads is transformers, whose context is longer than this server's."""
    check_backend(pair[1], expected_failures={"too_long_is_refused": "the checkpoint here has twice the context"})


@pytest.mark.parametrize(("mode", "shots"), [("zero-shot", 0), *(("aim", k) for k in (1, 2, 4, 8)), ("text-only", 3)])
def test_greedy_tokens(
    pipes: tuple[AIMPipeline, AIMPipeline], pictures: list[Image.Image], mode: Any, shots: int
) -> None:
    asked: dict[str, Any] = {"mode": mode, "shots": shots, "max_new_tokens": 12, "log_probs": True}
    for selector in ("first", "reading"):
        here, there = (pipe.generate(queries(pictures), selector=selector, **asked) for pipe in pipes)
        for one, other in zip(here, there, strict=True):
            assert one.token_ids == other.token_ids
            assert (one.text, one.ended, one.prompt_tokens) == (other.text, other.ended, other.prompt_tokens)
            assert one.log_probs == pytest.approx(other.log_probs, abs=1e-3)


def test_interleaved(pipes: tuple[AIMPipeline, AIMPipeline], pictures: list[Image.Image]) -> None:
    asked: dict[str, Any] = {"mode": "interleaved", "shots": 2, "max_new_tokens": 6, "selector": "first"}
    here, there = (pipe.generate(queries(pictures), **asked) for pipe in pipes)
    assert [one.token_ids for one in here] == [one.token_ids for one in there]


@pytest.mark.parametrize("template", [PLAIN.template, "{text}{image} is {answer}.", "{image} is:{answer}\n"])
def test_plain_formats(
    pair: tuple[TransformersBackend, VllmBackend], pictures: list[Image.Image], template: str
) -> None:
    """Also where the prompt begins with a word, and where the answer ends at a string."""
    projector = untrained("residual", pair[0].vocabulary)
    here, there = (AIMPipeline(backend, projector, prompt_format=template) for backend in pair)
    for pipe in (here, there):
        pipe.bank.add(demonstrations(pictures)[:3])
    for shots in (0, 3):
        first, second = (
            pipe.generate(queries(pictures), shots=shots, selector="first", max_new_tokens=16) for pipe in (here, there)
        )
        assert [(one.token_ids, one.text) for one in first] == [(one.token_ids, one.text) for one in second]


def test_streams(pipes: tuple[AIMPipeline, AIMPipeline], pictures: list[Image.Image]) -> None:
    """Read in turns: all of them are answered together."""
    _, pipe = pipes
    whole = pipe.generate(queries(pictures), shots=3, max_new_tokens=12)
    streams = [pipe.stream(query, shots=3, max_new_tokens=12) for query in queries(pictures)]
    assert ["".join(stream) for stream in streams] == [one.text for one in whole]


def test_scores(pipes: tuple[AIMPipeline, AIMPipeline], pictures: list[Image.Image]) -> None:
    choices = ["a lynx", "an owl that sleeps", "no"]
    for shots in (0, 4):
        for query in queries(pictures):
            here, there = (pipe.score(query, choices, shots=shots) for pipe in pipes)
            for one, other in zip(here, there, strict=True):
                assert one == pytest.approx(other, abs=1e-3)


def test_many_at_once(pipes: tuple[AIMPipeline, AIMPipeline], pictures: list[Image.Image]) -> None:
    """A batch larger than the server's, each query with demonstrations of its own; and several threads."""
    _, pipe = pipes
    many = [Query(pictures[n % 8].rotate(n), f"What is number {n}?") for n in range(24)]
    together = pipe.generate(many, shots=2, max_new_tokens=4)
    assert [one.token_ids for one in together] == [
        pipe.generate([query], shots=2, max_new_tokens=4)[0].token_ids for query in many
    ]
    found: dict[int, Any] = {}

    def ask(place: int) -> None:
        found[place] = pipe.generate(many[place : place + 4], shots=2, max_new_tokens=4)

    threads = [Thread(target=ask, args=(place,)) for place in range(0, 24, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.token_ids for place in sorted(found) for one in found[place]] == [one.token_ids for one in together]


def test_true_embeddings_are_the_text(
    pair: tuple[TransformersBackend, VllmBackend], pictures: list[Image.Image]
) -> None:
    """The identity test: the embeddings of a demonstration's text, injected, are that text."""
    local, served = pair
    shown = demonstrations(pictures)[:2]
    fused = local.reader.text_only(shown, prompt_format=local.default_format)
    (answer,) = served.injector.generate(
        queries(pictures)[:1], [fused], prompt_format=local.default_format, max_new_tokens=8
    )
    plain = local.plain_answer(
        queries(pictures)[0],
        prompt_format=local.default_format,
        max_new_tokens=8,
        demonstrations=shown,
        with_images=False,
    )
    assert list(answer.token_ids) == plain


def test_a_gateway_needs_no_weights(
    pair: tuple[TransformersBackend, VllmBackend], pictures: list[Image.Image], tmp_path: Path
) -> None:
    local, served = pair
    projector = untrained("residual", local.vocabulary)
    projector.save_pretrained(tmp_path / "projector")
    with pytest.warns(UserWarning, match="created"):
        reading = AIMPipeline(local, projector, bank=tmp_path / "bank", selector="first")
    reading.bank.add(demonstrations(pictures)[:4])
    expected = reading.generate(queries(pictures), max_new_tokens=6)
    reading.bank.close()
    bare = tmp_path / "bare"  # the checkpoint's files without its weights
    bare.mkdir()
    for file in Path(local.backbone.source).iterdir():
        if file.suffix != ".safetensors":
            (bare / file.name).write_bytes(file.read_bytes())
    options = {
        "model": bare,
        "base_url": served.injector._client.url,
        "reader": tmp_path / "bank",
        "projector": tmp_path / "projector",
        "bank": tmp_path / "bank",
    }
    with pytest.raises(CapabilityError, match=r"'reading' reads each query, .*reads nothing"):
        AIMPipeline.from_pretrained("vllm", **options)
    pipe = AIMPipeline.from_pretrained("vllm", **options, selector="first")
    found = pipe.generate(queries(pictures), max_new_tokens=6)
    assert [one.token_ids for one in found] == [one.token_ids for one in expected]
    with pytest.raises(CapabilityError, match="nothing can be read here"):
        pipe.generate(queries(pictures), selector="reading", shots=2)
    with pytest.raises(CapabilityError, match="nothing can be read here"):
        pipe.generate(queries(pictures), demonstrations=demonstrations(pictures)[5:6])
    pipe.bank.close()


def test_the_service_in_front(
    pair: tuple[TransformersBackend, VllmBackend], pictures: list[Image.Image], tmp_path: Path
) -> None:
    """What `aim-icl serve` answers is what transformers answers; streams that come together are answered together."""
    projector = untrained("residual", pair[0].vocabulary)
    here, there = (AIMPipeline(backend, projector) for backend in pair)
    conversations = [conversation(pictures, picture) for picture in pictures[4:7]]
    expected = [here.chat(messages, max_tokens=6, logprobs=True) for messages in conversations]
    with serving_pipeline(there, ServeSettings(banks=tmp_path)) as live, ThreadPoolExecutor(6) as pool:
        whole = pool.map(lambda one: live.chat(one, max_tokens=6, logprobs=True).json(), conversations)
        streams = pool.map(lambda one: events(live.chat(one, max_tokens=6, stream=True)), conversations)
        assert [token_ids(one) for one in whole] == [list(one.answers[0].token_ids or ()) for one in expected]
        texts = ["".join(e["choices"][0]["delta"].get("content", "") for e in one if e["choices"]) for one in streams]
    assert texts == [one.text for one in expected]


def test_the_same_demonstrations_are_computed_once(
    pipes: tuple[AIMPipeline, AIMPipeline], pictures: list[Image.Image]
) -> None:
    """The server's prefix cache has them, in whole blocks of 128 positions."""
    _, pipe = pipes
    url = pipe.backend.injector._client.url  # type: ignore[attr-defined]

    def hits() -> float:
        told = httpx2.get(f"{url}/metrics").text
        return sum(map(float, re.findall(r"^vllm:prefix_cache_hits_total\{.*\} (\S+)$", told, re.M)))

    shown = demonstrations(pictures)
    long = [replace(one, text=f"What is it, and what does it do in picture {n}? " * 3) for n, one in enumerate(shown)]
    kept = []
    for query in queries(pictures):
        before = hits()
        pipe.generate([query], demonstrations=long[:4], mode="aim", max_new_tokens=1)
        kept.append(hits() - before)
    assert kept[0] == 0
    assert kept[1] >= 128
    assert kept[2] >= 128


def test_sampling(pipes: tuple[AIMPipeline, AIMPipeline], pictures: list[Image.Image]) -> None:
    _, pipe = pipes
    drawn = [
        pipe.generate(queries(pictures)[:1], shots=2, do_sample=True, temperature=2.0, seed=seed, max_new_tokens=12)[0]
        for seed in (1, 1, 2)
    ]
    assert drawn[0].token_ids == drawn[1].token_ids
    assert drawn[0].token_ids != drawn[2].token_ids
    same = [Query(pictures[0], "What is this?")] * 3
    several = pipe.generate(same, shots=2, do_sample=True, temperature=2.0, seed=1, max_new_tokens=12)
    assert len({one.token_ids for one in several}) == 3
    with pytest.raises(InputError, match="num_beams"):
        pipe.generate(queries(pictures), num_beams=2)


def test_a_bad_query_is_named(pipes: tuple[AIMPipeline, AIMPipeline], pictures: list[Image.Image]) -> None:
    """Callers answer the others without it."""
    _, pipe = pipes
    context = [entry.fused for entry in pipe.bank.values()][:1]
    asked: dict[str, Any] = {"prompt_format": pipe.prompt_format, "max_new_tokens": 2}
    bad = {ImageError: Query(b"no image", "What?"), ContextLengthError: Query(pictures[0], "word " * 3000)}
    for kind, query in bad.items():
        with pytest.raises(kind) as raised:
            pipe.backend.injector.generate([queries(pictures)[0], query], [context, context], **asked)
        assert raised.value.query == 1


def test_the_pages_examples_run(
    pair: tuple[TransformersBackend, VllmBackend],
    pictures: list[Image.Image],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    local, served = pair
    monkeypatch.chdir(tmp_path)
    pictures[5].save("query.jpg")
    reading = AIMPipeline(local, untrained("residual", local.vocabulary), bank="animals")
    reading.projector.save_pretrained("projector")
    reading.bank.add(demonstrations(pictures))
    reading.bank.close()
    url = served.injector._client.url
    here = {
        "llava-hf/llava-1.5-7b-hf": local.backbone.source,
        "http://127.0.0.1:8000": url,
        "http://vllm:8000": url,
        "me/aim-llava-1.5-7b": "projector",
        '"rices"': '"first"',  # there are no weights of CLIP
    }
    scope: dict[str, Any] = {}
    for block in blocks(ROOT / "docs" / "how-to" / "vllm.md", "python"):
        for written, real in here.items():
            block = block.replace(written, real)
        exec(compile(block, "vllm.md", "exec"), scope)
        scope["pipe"].bank.close()


def test_other_weights_are_told(pair: tuple[TransformersBackend, VllmBackend]) -> None:
    local, served = pair
    head = local.model.get_output_embeddings().weight
    kept = head.clone()
    url = served.injector._client.url
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        VllmBackend.from_pretrained(base_url=url, reader=local)
    try:
        head.mul_(3)
        with pytest.warns(UserWarning, match="does it run the same weights"):
            VllmBackend.from_pretrained(base_url=url, reader=local)
    finally:
        head.copy_(kept)


def test_another_prompt_is_never_answered(
    pair: tuple[TransformersBackend, VllmBackend], pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mutation: the server is sent another text, or one fused token less, than what was meant."""
    _, served = pair
    injector: Any = served.injector
    fused = FusedTokens(torch.zeros(3, served.backbone.embedding_size))
    asked: dict[str, Any] = {"prompt_format": served.default_format, "max_new_tokens": 2}
    written = injector._prompts._written

    def another(*given: Any, **options: Any) -> tuple[str, str]:
        head, rest = written(*given, **options)
        return head, rest + "x"

    monkeypatch.setattr(injector._prompts, "_written", another)
    with pytest.raises(BackendError, match="differ from token"):
        injector.generate(queries(pictures)[:1], [[fused]], **asked)
