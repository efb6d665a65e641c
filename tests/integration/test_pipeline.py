"""AIMPipeline on a tiny LLaVA with a real processor."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from aim_sdk import AIMPipeline, Demonstration, LinearProjector, PromptFormat, Query, ResidualProjector
from aim_sdk.errors import ContextLengthError, FingerprintError, FormatError, ImageError, InputError, ShotsError

MODES = ("aim", "text-only", "interleaved", "zero-shot", "no-image")


@pytest.fixture(scope="module")
def folder(tiny: Callable[[str], Path]) -> Path:
    return tiny("llava-1.5")


@pytest.fixture
def pipe(folder: Path) -> AIMPipeline:
    torch.manual_seed(0)
    pipe = AIMPipeline.from_pretrained("llava", model=folder, projector="residual", selector="first", device="cpu")
    torch.nn.init.normal_(pipe.projector.linear.weight)
    return pipe


@pytest.fixture
def demonstrations(pictures: list[Image.Image]) -> list[Demonstration]:
    answers = ["a lynx", "a fox", "a small brown bear", "a cat"]
    return [Demonstration(image, "What is it?", answer) for image, answer in zip(pictures, answers, strict=False)]


@pytest.fixture
def queries(pictures: list[Image.Image]) -> list[Query]:
    return [
        Query(image, text)
        for image, text in zip(pictures[4:], ["What is it?", "And this one here?", "?"], strict=False)
    ]


@pytest.mark.parametrize("mode", MODES)
def test_batched_equals_one_by_one_in_every_mode(
    pipe: AIMPipeline, demonstrations: list[Demonstration], queries: list[Query], mode: str
) -> None:
    """Different demonstrations a query, unequal lengths, more queries than a batch holds."""
    contexts = [demonstrations[:3], demonstrations[2:], demonstrations[:1]]
    if mode == "zero-shot":
        contexts = [[], [], []]
    together = pipe.generate(queries, demonstrations=contexts, mode=mode, batch_size=2, max_new_tokens=6)
    for query, context, answer in zip(queries, contexts, together, strict=True):
        alone = pipe.generate([query], demonstrations=context, mode=mode, max_new_tokens=6)[0]
        assert alone == answer
        assert pipe(query.image, query.text, demonstrations=context, mode=mode, max_new_tokens=6) == answer.text
        pieces = pipe.stream(query.image, query.text, demonstrations=context, mode=mode, max_new_tokens=6)
        assert "".join(pieces) == answer.text


def test_context_tokens_of_the_modes(
    pipe: AIMPipeline, demonstrations: list[Demonstration], queries: list[Query]
) -> None:
    """AIM and its controls cost the same; interleaving adds the visual tokens; zero-shot is the query alone."""
    tokens = {
        mode: pipe.generate(queries[:1], demonstrations=demonstrations, mode=mode, max_new_tokens=1)[0].prompt_tokens
        for mode in MODES
    }
    assert tokens["zero-shot"] < tokens["aim"] == tokens["text-only"] == tokens["no-image"] < tokens["interleaved"]


def test_banked_and_given_demonstrations_answer_alike(
    pipe: AIMPipeline, demonstrations: list[Demonstration], queries: list[Query]
) -> None:
    pipe.bank.add(demonstrations)
    banked = pipe.generate(queries, shots=2, max_new_tokens=6)
    assert banked == pipe.generate(queries, demonstrations=demonstrations[:2], max_new_tokens=6)
    assert banked == pipe.generate(queries, demonstrations=demonstrations, shots=2, max_new_tokens=6)
    assert pipe.generate(queries, max_new_tokens=6) == pipe.generate(queries, shots=4, max_new_tokens=6)
    zero = pipe.generate(queries, shots=0, max_new_tokens=6)
    assert zero == pipe.generate(queries, mode="zero-shot", max_new_tokens=6)


def test_an_untrained_residual_equals_text_only_and_a_trained_one_does_not(
    folder: Path, pipe: AIMPipeline, demonstrations: list[Demonstration], queries: list[Query]
) -> None:
    """The image reaches the answer through the fused tokens, and only through them."""
    choices = ["a lynx", "a dog"]

    def scores(pipe: AIMPipeline, mode: str) -> list[float]:
        return pipe.score(queries[0], choices, demonstrations=demonstrations, mode=mode)

    plain = AIMPipeline(pipe.backend, ResidualProjector(*_sizes(pipe)))
    assert scores(plain, "aim") == scores(plain, "text-only")
    assert scores(pipe, "text-only") == scores(plain, "text-only")
    assert len({tuple(scores(pipe, mode)) for mode in ("aim", "text-only", "no-image", "interleaved")}) == 4


def test_score_normalization(pipe: AIMPipeline, demonstrations: list[Demonstration], queries: list[Query]) -> None:
    choices = ["yes", "a small brown bear"]
    given = {"demonstrations": demonstrations}
    total = pipe.score(queries[0], choices, **given)
    a_character = pipe.score(queries[0], choices, normalize="characters", **given)
    a_token = pipe.score(queries[0], choices, normalize="tokens", **given)
    assert all(value < 0 for value in total)
    # The prompt's prefix is computed apart the second time: equal up to the last digits.
    assert a_character == pytest.approx([value / len(choice) for value, choice in zip(total, choices, strict=True)])
    assert total[1] < a_token[1] < 0


def test_a_saved_projector_loads_by_its_path_and_fits_only_its_backbone(
    pipe: AIMPipeline,
    folder: Path,
    tiny: Callable[[str], Path],
    tmp_path: Path,
    demonstrations: list[Demonstration],
    queries: list[Query],
) -> None:
    pipe.projector.save_pretrained(tmp_path / "projector")
    again = AIMPipeline.from_pretrained("llava", model=folder, projector=tmp_path / "projector", device="cpu")
    expected = pipe.generate(queries, demonstrations=demonstrations, max_new_tokens=6)
    found = again.generate(queries, demonstrations=demonstrations, max_new_tokens=6)
    # Not the keys of the demonstrations: `pipe` was made before its projector's weights were drawn.
    assert [(a.text, a.token_ids, a.prompt_tokens) for a in found] == [
        (a.text, a.token_ids, a.prompt_tokens) for a in expected
    ]
    with pytest.raises(FingerprintError, match=r"llava-1\.5.*qwen2-vl"):
        AIMPipeline.from_pretrained("qwen-vl", model=tiny("qwen2-vl"), projector=tmp_path / "projector", device="cpu")


def test_threads_do_not_mix(pipe: AIMPipeline, demonstrations: list[Demonstration], queries: list[Query]) -> None:
    contexts = [demonstrations[:1], demonstrations[1:3], demonstrations[3:]]
    expected = [
        pipe(q.image, q.text, demonstrations=c, max_new_tokens=6) for q, c in zip(queries, contexts, strict=True)
    ]
    found: dict[int, str] = {}

    def run(i: int) -> None:
        found[i] = pipe(queries[i].image, queries[i].text, demonstrations=contexts[i], max_new_tokens=6)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[i] for i in range(3)] == expected


def test_bad_arguments_are_explained(
    pipe: AIMPipeline, demonstrations: list[Demonstration], queries: list[Query]
) -> None:
    image = queries[0].image
    pipe.bank.add(demonstrations)
    with pytest.raises(ShotsError, match="5 shots asked for, but the bank holds 4"):
        pipe(image, "What?", shots=5)
    with pytest.raises(ShotsError, match="only 4 demonstrations were given"):
        pipe(image, "What?", shots=9, demonstrations=demonstrations)
    with pytest.raises(InputError, match="Did you mean 'text-only'"):
        pipe(image, "What?", mode="text_only")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="shots=-1"):
        pipe(image, "What?", shots=-1)
    with pytest.raises(InputError, match="max_new_tokens=0"):
        pipe(image, "What?", max_new_tokens=0)
    with pytest.raises(InputError, match="nothing says what is asked"):
        pipe(image, "  ", shots=0)
    with pytest.raises(InputError, match="3 queries, but demonstrations for 2"):
        pipe.generate(queries, demonstrations=[demonstrations, demonstrations])
    with pytest.raises(InputError, match="num_return_sequences"):
        pipe.generate(queries, num_return_sequences=2, do_sample=True, max_new_tokens=2)
    with pytest.raises(InputError, match="choices"):
        pipe.score(queries[0], ["yes", " "])
    with pytest.raises(InputError, match="normalize"):
        pipe.score(queries[0], ["yes"], normalize="token")  # type: ignore[arg-type]
    with pytest.raises(ImageError, match="no such file"):
        pipe("nowhere.jpg", "What?")
    with pytest.raises(FormatError, match="<image>"):
        pipe(image, "What is <image>?")
    with pytest.raises(ContextLengthError, match=r"\d+ tokens"):
        pipe(image, "why " * 3000)


def test_a_projector_of_another_size_or_kind_is_refused(pipe: AIMPipeline, folder: Path) -> None:
    with pytest.raises(InputError, match=r"maps 3 -> 5, but .* needs"):
        AIMPipeline(pipe.backend, LinearProjector(3, 5))


def test_a_plain_format_is_used_and_ends_the_answer(pipe: AIMPipeline, queries: list[Query]) -> None:
    form = PromptFormat.plain("{image}Question: {text} Answer: {answer}\n")
    plain = AIMPipeline(pipe.backend, pipe.projector, prompt_format=form)
    answer = plain.generate(queries[:1], mode="zero-shot", max_new_tokens=12)[0]
    assert "\n" not in answer.text


def _sizes(pipe: AIMPipeline) -> tuple[int, int]:
    return pipe.backend.fingerprint.hidden_size, pipe.backend.fingerprint.embedding_size
