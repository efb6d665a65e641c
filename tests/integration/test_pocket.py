"""The embedded model: real weights, real images, the identities that a backend promises, and what it has learnt."""

import math
import random
from typing import Any

import easy_vqa
import pytest
import torch
from PIL import Image

from aim_backends.pocket.backend import PocketBackend
from aim_backends.pocket.model import DEFAULT_FORMAT
from aim_backends.pocket.vision import preprocess
from aim_sdk import AIMPipeline, Demonstration, FusedTokens, PromptFormat, Query, ResidualProjector
from aim_sdk.errors import ContextLengthError, DeviceError, FormatError, InputError, ModelNotFoundError, NonFiniteError
from aim_sdk.evaluation.plan import draws
from aim_sdk.evaluation.protocol import get_protocol
from aim_sdk.testing import check_backend
from aim_sdk.types import Context

QUESTION = "What is this?"


@pytest.fixture(scope="module")
def pipe() -> AIMPipeline:
    return AIMPipeline.from_pretrained("pocket", device="cpu")


@pytest.fixture(scope="module")
def backend(pipe: AIMPipeline) -> PocketBackend:
    assert isinstance(pipe.backend, PocketBackend)
    return pipe.backend


def test_its_projector_and_banks_fit_in_every_dtype(backend: PocketBackend) -> None:
    """float16 rounds otherwise than bfloat16: the fingerprint is of the weights as they are shipped."""
    for dtype in ("float16", "bfloat16"):
        half = AIMPipeline.from_pretrained("pocket", device="cpu", dtype=dtype)
        assert not half.backend.fingerprint.differences(backend.fingerprint)
        assert half.encoder.binding.scope == AIMPipeline(backend).encoder.binding.scope


@pytest.mark.parametrize("options", [{}, {"do_sample": True, "seed": 0}])
def test_nan_in_the_logits_is_refused(
    backend: PocketBackend, queries: list[Query], monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    head, steps = backend.model.lm.head, 0

    def lose(hidden: torch.Tensor) -> torch.Tensor:
        nonlocal steps
        steps += 1
        logits = head(hidden)
        if steps > 1:
            logits[1, ..., 7] = math.nan
        return logits

    monkeypatch.setattr(backend.model.lm, "head", lose)
    with pytest.raises(NonFiniteError, match="logits, computed in float32") as caught:
        backend.injector.generate(
            queries, [[]] * len(queries), prompt_format=DEFAULT_FORMAT, max_new_tokens=4, **options
        )
    assert caught.value.query == 1
    with pytest.raises(NonFiniteError, match="log-probabilities"):
        backend.injector.score(queries[0], [], ["a b c", "red"], prompt_format=DEFAULT_FORMAT)


@pytest.fixture
def demonstrations(pictures: list[Image.Image]) -> list[Demonstration]:
    answers = ["zib", "a rather long answer with many words", "lom", "no"]
    return [Demonstration(image, QUESTION, answer) for image, answer in zip(pictures, answers, strict=False)]


@pytest.fixture
def queries(pictures: list[Image.Image]) -> list[Query]:
    return [
        Query(image, text)
        for image, text in zip(pictures[4:], [QUESTION, "What colour is the thing?", ""], strict=False)
    ]


def logits(backend: PocketBackend, query: Query, context: Context) -> torch.Tensor:
    prompt = backend.injector.prefill([query], [context], DEFAULT_FORMAT, 1)
    return backend.model.lm.head(prompt.last[0, -1])


def test_injecting_the_text_is_the_plain_model_on_that_text(
    backend: PocketBackend, demonstrations: list[Demonstration], queries: list[Query]
) -> None:
    """Identity: true token embeddings as fused tokens give the logits of the same ids run through the LM by hand."""
    model, query = backend.model, queries[0]
    ids = [*model.opening_ids]
    for item in demonstrations:
        for segment in (f"Question: {item.text}\n", "\nAnswer:", f" {item.answer}\n"):
            ids += model.tokenize(segment)
    visual = model.vision.encode_pixels([preprocess(query.image)])[0]
    before, after = model.tokenize(f"Question: {query.text}\n"), model.tokenize("\nAnswer:")
    prompt = torch.cat([model.lm.embed(torch.tensor(ids + before)), visual, model.lm.embed(torch.tensor(after))])
    expected = model.lm.head(model.lm(prompt[None])[0, -1])
    fused = backend.reader.text_only(demonstrations, prompt_format=DEFAULT_FORMAT)
    assert torch.equal(logits(backend, query, fused), expected)


def test_no_fused_tokens_is_the_plain_model(backend: PocketBackend, queries: list[Query]) -> None:
    model, query = backend.model, queries[0]
    before, after = model.tokenize(f"Question: {query.text}\n"), model.tokenize("\nAnswer:")
    visual = model.vision.encode_pixels([preprocess(query.image)])[0]
    parts = [model.lm.embed(torch.tensor([*model.opening_ids, *before])), visual, model.lm.embed(torch.tensor(after))]
    expected = model.lm.head(model.lm(torch.cat(parts)[None])[0, -1])
    assert torch.equal(logits(backend, query, []), expected)


@pytest.mark.parametrize("with_images", [True, False])
def test_a_reading_depends_on_its_demonstration_alone(
    backend: PocketBackend, demonstrations: list[Demonstration], with_images: bool
) -> None:
    together = backend.reader.read(demonstrations, prompt_format=DEFAULT_FORMAT, with_images=with_images)
    text = backend.reader.text_only(demonstrations, prompt_format=DEFAULT_FORMAT)
    for item, reading, same in zip(demonstrations, together, text, strict=True):
        (alone,) = backend.reader.read([item], prompt_format=DEFAULT_FORMAT, with_images=with_images)
        torch.testing.assert_close(reading.hidden, alone.hidden, atol=2e-4, rtol=1e-4)
        assert torch.equal(reading.token_ids, alone.token_ids)
        assert torch.equal(reading.embeddings, same.embeddings)
        assert backend.model.decode(reading.token_ids[reading.answer_start :].tolist()) == f" {item.answer}\n"
        assert backend.model.decode(reading.token_ids[: reading.image_position].tolist()) == f"Question: {item.text}\n"


def test_an_image_reaches_the_reading(backend: PocketBackend, demonstrations: list[Demonstration]) -> None:
    first = demonstrations[0]
    other = Demonstration(demonstrations[2].image, first.text, first.answer)
    one, two = backend.reader.read([first, other], prompt_format=DEFAULT_FORMAT)
    changed = (one.hidden - two.hidden).abs().amax(1) > 1e-2
    assert not changed[: one.image_position].any()
    assert changed[one.image_position :].all()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["aim", "text-only", "interleaved", "zero-shot", "no-image"])
def test_batch_stream_and_shared_contexts_answer_as_one_query_alone(
    pipe: AIMPipeline, demonstrations: list[Demonstration], queries: list[Query], mode: str
) -> None:
    own = [demonstrations, demonstrations[:1], demonstrations[1:3]]
    shared = [demonstrations, demonstrations, demonstrations[:2]]
    for contexts in (own, shared):
        together = pipe.generate(queries, demonstrations=contexts, mode=mode, max_new_tokens=5)
        for query, context, answer in zip(queries, contexts, together, strict=True):
            assert pipe.generate([query], demonstrations=context, mode=mode, max_new_tokens=5) == [answer]
            pieces = pipe.stream(query.image, query.text, demonstrations=context, mode=mode, max_new_tokens=5)
            assert "".join(pieces) == answer.text


def test_score_equals_the_full_forward(
    pipe: AIMPipeline, backend: PocketBackend, demonstrations: list[Demonstration], queries: list[Query]
) -> None:
    choices = ["no", "a rather long answer"]
    scores = pipe.score(queries[0], choices, demonstrations=demonstrations, mode="text-only")
    fused = backend.reader.text_only(demonstrations, prompt_format=DEFAULT_FORMAT)
    for choice, score in zip(choices, scores, strict=True):
        ids = backend.model.tokenize(f" {choice}")
        (context,) = backend.injector.contexts([fused], DEFAULT_FORMAT)
        (query,) = backend.injector.queries(queries[:1], DEFAULT_FORMAT)
        hidden = backend.model.lm(torch.cat([context, query, backend.model.lm.embed(torch.tensor(ids))])[None])[0]
        log_probs = backend.model.lm.head(hidden).log_softmax(-1)
        expected = sum(log_probs[len(context) + len(query) - 1 + i, token] for i, token in enumerate(ids))
        assert score == pytest.approx(float(expected), abs=1e-3)


def test_an_untrained_residual_equals_text_only(
    backend: PocketBackend, demonstrations: list[Demonstration], queries: list[Query]
) -> None:
    plain = AIMPipeline(backend, ResidualProjector(576, 576))
    aim, text = (plain.score(queries[0], ["no"], demonstrations=demonstrations, mode=m) for m in ("aim", "text-only"))
    assert aim == text


def test_gradients_reach_fused_tokens_and_nothing_else(backend: PocketBackend, queries: list[Query]) -> None:
    fused = torch.randn(5, 576).mul(0.1).requires_grad_(True)
    (context,) = backend.injector.contexts([[FusedTokens(fused)]], DEFAULT_FORMAT)
    (query,) = backend.injector.queries(queries[:1], DEFAULT_FORMAT)
    backend.model.lm(torch.cat([context, query])[None]).sum().backward()
    assert fused.grad is not None
    assert fused.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in backend.model.lm.parameters())


def test_sampling_is_seeded_and_validated(pipe: AIMPipeline, queries: list[Query]) -> None:
    image, text = queries[0].image, queries[0].text
    options = {"mode": "zero-shot", "do_sample": True, "temperature": 3.0, "max_new_tokens": 8}
    assert pipe(image, text, seed=1, **options) == pipe(image, text, seed=1, **options)
    assert len({pipe(image, text, seed=seed, **options) for seed in range(6)}) > 1
    assert pipe(image, text, seed=1, **options | {"top_p": 1e-6}) == pipe(
        image, text, mode="zero-shot", max_new_tokens=8
    )
    with pytest.raises(InputError, match="Did you mean 'temperature'"):
        pipe(image, text, mode="zero-shot", temprature=1.0)
    with pytest.raises(InputError, match="top_p"):
        pipe(image, text, mode="zero-shot", top_p=2.0)


def test_bad_input_is_explained(pipe: AIMPipeline, queries: list[Query]) -> None:
    image = queries[0].image
    with pytest.raises(FormatError, match=r"<\|im_end\|>"):
        pipe(image, "What<|im_end|>?", mode="zero-shot")
    with pytest.raises(ContextLengthError, match="8192"):
        pipe(image, "why " * 9000, mode="zero-shot")
    with pytest.raises(FormatError, match="no chat template"):
        AIMPipeline(pipe.backend, pipe.projector, prompt_format=PromptFormat.chat())(image, "What?", mode="zero-shot")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"model": "pocket-7"}, ModelNotFoundError, "pocket-1"),
        ({"dtype": "float23"}, DeviceError, "Did you mean 'float32'"),
        ({"device": "cuba"}, DeviceError, "This machine has: cpu"),
        ({"revision": "main"}, InputError, "no option 'revision'"),
    ],
)
def test_wrong_options_are_explained(options: dict[str, str], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        AIMPipeline.from_pretrained("pocket", **options)


def test_another_format_reads_and_answers(
    backend: PocketBackend, demonstrations: list[Demonstration], queries: list[Query]
) -> None:
    form = PromptFormat.plain("{image}\n{text} => {answer};", system="Look closely.\n")
    (reading,) = backend.reader.read(demonstrations[:1], prompt_format=form)
    assert reading.image_position == 0
    assert backend.model.decode(reading.token_ids.tolist()) == f"\n{QUESTION} => zib;"
    answer = AIMPipeline(backend, prompt_format=form)(queries[0].image, "What?", demonstrations=demonstrations)
    assert ";" not in answer


def test_it_sees_colours_and_shapes_it_was_not_trained_on(pipe: AIMPipeline) -> None:
    """easy-VQA's official test split, questions about colour and shape."""
    paths = easy_vqa.get_test_image_paths()
    records = [r for r in zip(*easy_vqa.get_test_questions(), strict=True) if r[1] not in ("yes", "no")]
    chosen = random.Random(0).sample(records, 40)
    queries = [Query(paths[image], question[0].upper() + question[1:]) for question, _, image in chosen]
    answers = pipe.generate(queries, mode="zero-shot", max_new_tokens=4, batch_size=20)
    assert sum(a.text == gold for a, (_, gold, _) in zip(answers, chosen, strict=True)) >= 37


@pytest.mark.slow
def test_it_binds_names_through_fused_tokens(pipe: AIMPipeline) -> None:
    """The seed of the whole: with the demonstrations' images AIM knows which name is meant, without them it guesses."""
    asked = draws("emoji-names", get_protocol("demo"), shots=2, limit=60, seed=1)

    def accuracy(mode: str) -> float:
        answers = pipe.generate(
            [one.query for one in asked],
            demonstrations=[one.demonstrations for one in asked],
            mode=mode,
            max_new_tokens=4,
            batch_size=30,
        )
        return sum(a.text == one.item.answers[0] for a, one in zip(answers, asked, strict=True)) / len(asked)

    assert accuracy("aim") > accuracy("no-image") + 0.15


def test_attention_covers_the_interleaved_prompt(
    backend: PocketBackend, demonstrations: list[Demonstration], queries: list[Query]
) -> None:
    """Kinds by a hand count; the weights are those of the prompt that answers, not of another."""
    model, shown, answer = backend.model, demonstrations[:2], "a red thing"
    found = backend.attention(queries[1], shown, answer, prompt_format=DEFAULT_FORMAT)

    def count(*texts: str) -> int:
        return sum(len(model.tokenize(text)) for text in texts)

    expected = ["first"]
    for item in shown:
        expected += ["demonstration text"] * count(f"Question: {item.text}\n") + ["demonstration visual"] * 16
        expected += ["demonstration text"] * count("\nAnswer:", f" {item.answer}\n")
    expected += ["query text"] * count(f"Question: {queries[1].text}\n") + ["query visual"] * 16
    expected += ["query text"] * count("\nAnswer:") + ["answer"] * (count(f" {answer}") - 1)
    assert list(found.kinds) == expected
    assert found.answer_tokens == count(f" {answer}")
    assert found.layers == tuple(range(30))
    torch.testing.assert_close(found.weights.sum(1), torch.ones(30))
    prompt = torch.cat(
        [*backend.injector.contexts([shown], DEFAULT_FORMAT), *backend.injector.queries([queries[1]], DEFAULT_FORMAT)]
    )
    first = backend.attention(queries[1], shown, "a", prompt_format=DEFAULT_FORMAT)
    assert first.answer_tokens == 1
    torch.testing.assert_close(first.weights, model.lm.attention(prompt[None], 1)[:, 0])


def test_attention_is_refused_where_there_is_no_answer_or_no_room(backend: PocketBackend, queries: list[Query]) -> None:
    with pytest.raises(InputError, match="blank"):
        backend.attention(queries[0], [], " ", prompt_format=DEFAULT_FORMAT)
    with pytest.raises(ContextLengthError):
        backend.attention(queries[0], [], "word " * 9000, prompt_format=DEFAULT_FORMAT)


@pytest.mark.slow
def test_it_passes_the_public_kit(backend: PocketBackend) -> None:
    merged = "its hash takes the LoRA of its file: what it is merged into depends on the machine's arithmetic"
    results = check_backend(backend, expected_failures={"fingerprint": merged})
    assert {result.check for result in results if result.status == "not applicable"} == {
        "boxes_are_kept",
        "end_token",
        "identity_beams",
        "slot_changes_nothing",
        "slot_never_generated",
    }
