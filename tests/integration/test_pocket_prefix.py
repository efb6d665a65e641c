"""After demonstrations that were computed before, pocket answers as if it had run them again."""

import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from aim_backends.pocket.backend import PocketBackend
from aim_backends.pocket.cache import KVCache
from aim_backends.pocket.injector import PocketInjector
from aim_backends.pocket.model import DEFAULT_FORMAT
from aim_sdk import AIMPipeline, Demonstration, FusedTokens, Generation, Query
from aim_sdk.backend import ReusesPrefixes, find
from aim_sdk.backend.prefixes import DEFAULT_BYTES, MIN_TOKENS
from aim_sdk.errors import ContextLengthError
from aim_sdk.types import Context

CHOICES = ["no", "a rather long answer"]
TEXTS = ["What is this?", "Which colour does it have?", "What is it called by those who made it?"]


@pytest.fixture(scope="module")
def pipe() -> AIMPipeline:
    return AIMPipeline.from_pretrained("pocket", device="cpu")


@pytest.fixture(scope="module")
def backend(pipe: AIMPipeline) -> PocketBackend:
    assert isinstance(pipe.backend, PocketBackend)
    return pipe.backend


@pytest.fixture
def injector(backend: PocketBackend) -> PocketInjector:
    backend.injector.prefixes.resize(DEFAULT_BYTES)
    return backend.injector


@pytest.fixture
def shallow(backend: PocketBackend) -> Iterator[None]:
    """A fifth of the layers, in a fifth of the time: what is kept of a layer does not depend on their number."""
    lm, layers = backend.model.lm, backend.model.lm.layers
    lm.layers = layers[:6]
    yield
    lm.layers = layers


@pytest.fixture(scope="module")
def demonstrations(pictures: list[Image.Image]) -> list[Demonstration]:
    answers = ["zib", "a rather long answer", "lom", "no", "two words", "pel"]
    return [
        Demonstration(image, TEXTS[i % 3], answer)
        for i, (image, answer) in enumerate(zip(pictures, answers, strict=False))
    ]


@pytest.fixture(scope="module")
def fused(backend: PocketBackend, demonstrations: list[Demonstration]) -> list[FusedTokens]:
    made = backend.reader.text_only(demonstrations, prompt_format=DEFAULT_FORMAT)
    tokens = [FusedTokens(item.embeddings, key=f"{number}") for number, item in enumerate(made)]
    assert sum(map(len, tokens[:2])) < MIN_TOKENS < sum(map(len, tokens[:3]))
    return tokens


@pytest.fixture(scope="module")
def queries(pictures: list[Image.Image]) -> list[Query]:
    return [Query(image, text) for image, text in zip(pictures[5:], [*TEXTS[:2], ""], strict=True)]


def generate(
    injector: PocketInjector, queries: Sequence[Query], contexts: Sequence[Context], new: int = 3
) -> list[Generation]:
    return injector.generate(queries, contexts, prompt_format=DEFAULT_FORMAT, max_new_tokens=new, log_probs=True)


def plain(
    injector: PocketInjector, queries: Sequence[Query], contexts: Sequence[Context], new: int = 3
) -> list[Generation]:
    """The answers of prompts that are run whole; what is kept is forgotten."""
    injector.prefixes.resize(0)
    answers = generate(injector, queries, contexts, new)
    injector.prefixes.resize(DEFAULT_BYTES)
    return answers


def check(found: list[Generation], expected: list[Generation]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert (one.text, one.token_ids, one.prompt_tokens) == (other.text, other.token_ids, other.prompt_tokens)
        assert one.log_probs == pytest.approx(other.log_probs, abs=1e-4)


@contextmanager
def positions(backend: PocketBackend) -> Iterator[list[int]]:
    """Positions of each forward of the language model, padding included."""
    counts: list[int] = []

    def count(_: nn.Module, inputs: tuple[Tensor]) -> None:
        counts.append(inputs[0].shape[0] * inputs[0].shape[1])

    handle = backend.model.lm.register_forward_pre_hook(count)
    try:
        yield counts
    finally:
        handle.remove()


def kept(injector: PocketInjector, context: Context) -> KVCache:
    shared = injector.prefixes.shared(DEFAULT_FORMAT, [context])
    assert shared is not None
    assert shared.state is not None
    assert shared.done == len(shared.keys) == len(context)
    return shared.state


def test_it_is_declared(backend: PocketBackend) -> None:
    assert find(backend, ReusesPrefixes) is backend


def test_the_first_second_and_third_answer_are_the_plain_one(
    injector: PocketInjector, fused: list[FusedTokens], queries: list[Query]
) -> None:
    query, context = queries[:1], fused[:4]
    scored = {"prompt_format": DEFAULT_FORMAT}
    streamed = {"prompt_format": DEFAULT_FORMAT, "max_new_tokens": 3}
    expected = plain(injector, query, [context])
    injector.prefixes.resize(0)
    scores = injector.score(query[0], context, CHOICES, **scored)
    injector.prefixes.resize(DEFAULT_BYTES)
    for _ in range(3):
        check(generate(injector, query, [context]), expected)
    for _ in range(3):
        found = injector.score(query[0], context, CHOICES, **scored)
        assert [pytest.approx(row, abs=1e-4) for row in scores] == found
    for _ in range(2):
        assert "".join(injector.stream(query[0], context, **streamed)).strip() == expected[0].text


def test_what_was_computed_is_not_run_again(
    backend: PocketBackend, injector: PocketInjector, fused: list[FusedTokens], queries: list[Query]
) -> None:
    short, long = fused[:3], fused
    asked = len(injector.queries(queries[:1], DEFAULT_FORMAT)[0])
    first, more = 1 + sum(map(len, short)), sum(map(len, long[3:]))
    assert more >= MIN_TOKENS
    with positions(backend) as runs:
        for context in (short, short, short, long, long, long, short, []):
            generate(injector, queries[:1], [context], 1)
    assert runs == [
        first + asked,  # not known to come again
        first,  # computed apart, and the query after it
        asked,
        asked,  # the third time
        more + asked,  # after what is known of it
        more,
        asked,
        asked,
        asked,
        1 + asked,
    ]
    assert injector.prefixes.info()["states"] == 2
    with positions(backend) as runs:
        injector.score(queries[0], long, CHOICES, prompt_format=DEFAULT_FORMAT)
        "".join(injector.stream(queries[0], long, prompt_format=DEFAULT_FORMAT, max_new_tokens=1))
    assert runs == [asked, 2 * (len(injector.prompts.choice(CHOICES[1], DEFAULT_FORMAT)) - 1), asked]


@pytest.mark.usefixtures("shallow")
def test_batches_of_any_contexts_are_answered_as_plain(
    injector: PocketInjector, fused: list[FusedTokens], queries: list[Query]
) -> None:
    a, b = fused[:3], fused[:4]
    batches: list[list[list[FusedTokens]]] = [
        [a, a, a],
        [a, [*a, fused[5]], b],  # unequal rests
        [b, b, [*a, fused[4], fused[5]]],  # a rest that two rows share
        [a, a, b],  # a shared rest without tokens beside one with
        [a, b, fused[4:]],  # nothing in common
        [a, a, []],
    ]
    for contexts in batches:
        injector.prefixes.resize(DEFAULT_BYTES)
        expected = plain(injector, queries, contexts, 2)
        for _ in range(2):
            check(generate(injector, queries, contexts, 2), expected)


@pytest.mark.usefixtures("shallow")
def test_prefixes_that_grow_and_branch_are_answered_as_plain(
    injector: PocketInjector, fused: list[FusedTokens], queries: list[Query]
) -> None:
    draw = random.Random(0)

    def context() -> list[FusedTokens]:
        return [*fused[: draw.randint(0, 6)], *draw.sample(fused, draw.randint(0, 1))]

    calls = [[context() for _ in range(draw.randint(1, 3))] for _ in range(16)]
    injector.prefixes.resize(0)
    expected = [generate(injector, queries[: len(contexts)], contexts, 1) for contexts in calls]
    injector.prefixes.resize(DEFAULT_BYTES)
    for contexts, answers in zip(calls, expected, strict=True):
        check(generate(injector, queries[: len(contexts)], contexts, 1), answers)
    assert injector.prefixes.info()["states"] >= 2


@pytest.mark.usefixtures("shallow")
def test_use_does_not_change_what_is_kept(
    injector: PocketInjector, fused: list[FusedTokens], queries: list[Query]
) -> None:
    for context in (fused[:3], fused[:3], fused, fused):  # the second state lies after the first, with room after it
        generate(injector, queries[:1], [context], 1)
    states = [kept(injector, fused[:3]), kept(injector, fused)]
    held = [[(keys.clone(), values.clone()) for keys, values in map(state.layer, range(6))] for state in states]
    lengths = list(map(len, states))
    generate(injector, queries, [fused[:3], fused[:4], fused[:3]], 2)
    generate(injector, queries, [fused] * 3, 12)
    injector.score(queries[0], fused, CHOICES, prompt_format=DEFAULT_FORMAT)
    list(injector.stream(queries[0], fused[:3], prompt_format=DEFAULT_FORMAT, max_new_tokens=3))
    assert list(map(len, states)) == lengths == [1 + sum(map(len, fused[:3])), 1 + sum(map(len, fused))]
    for state, layers in zip(states, held, strict=True):
        for layer, (keys, values) in enumerate(layers):
            assert torch.equal(state.layer(layer)[0], keys)
            assert torch.equal(state.layer(layer)[1], values)
    info = injector.prefixes.info()
    assert info["bytes"] == sum(state.nbytes for state in states)


@pytest.mark.usefixtures("shallow")
def test_answers_stay_right_when_the_cache_is_too_small(
    injector: PocketInjector, fused: list[FusedTokens], queries: list[Query]
) -> None:
    one, other = fused[:3], fused[3:]
    expected = plain(injector, queries[:1], [one], 1), plain(injector, queries[:1], [other], 1)
    for _ in range(2):
        generate(injector, queries[:1], [one], 1)
    size = kept(injector, one).nbytes
    for bound in (size * 3 // 2, size // 2):  # room for one, for none
        injector.prefixes.resize(bound)
        for _ in range(3):
            check(generate(injector, queries[:1], [one], 1), expected[0])
            check(generate(injector, queries[:1], [other], 1), expected[1])
            assert injector.prefixes.info()["bytes"] <= bound
    assert injector.prefixes.info()["states"] == 0


@pytest.mark.usefixtures("shallow")
def test_threads_share_what_is_kept(injector: PocketInjector, fused: list[FusedTokens], queries: list[Query]) -> None:
    jobs = [(query, fused[:length]) for length in (3, 4) for query in queries[:2]]
    expected = [plain(injector, [query], [context], 2) for query, context in jobs]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda job: generate(injector, [job[0]], [job[1]], 2), jobs * 2))
    for one, other in zip(found, expected * 2, strict=True):
        check(one, other)
    assert injector.prefixes.info()["states"] >= 1


@pytest.mark.usefixtures("shallow")
def test_what_cannot_come_again_is_not_kept(
    injector: PocketInjector, fused: list[FusedTokens], demonstrations: list[Demonstration], queries: list[Query]
) -> None:
    unnamed = [FusedTokens(item.embeddings) for item in fused]
    contexts: list[Context] = [[], fused[:2], unnamed, demonstrations[:2]]  # none, too few tokens, no key, images
    for context in contexts:
        for _ in range(2):
            generate(injector, queries[:1], [context], 1)
    assert injector.prefixes.info()["states"] == 0


def test_a_prompt_that_is_too_long_is_refused_behind_a_prefix_too(
    backend: PocketBackend, injector: PocketInjector, fused: list[FusedTokens], queries: list[Query]
) -> None:
    long = Query(queries[0].image, "why " * 8300)
    with positions(backend) as runs:
        for _ in range(2):
            with pytest.raises(ContextLengthError) as caught:
                generate(injector, [long], [fused], 1)
    tokens = 1 + sum(map(len, fused)) + len(injector.queries([long], DEFAULT_FORMAT)[0])
    assert f"has {tokens} tokens" in str(caught.value)
    assert not runs


def test_the_pipeline_reuses_what_its_bank_holds(
    pipe: AIMPipeline, backend: PocketBackend, demonstrations: list[Demonstration], queries: list[Query]
) -> None:
    bound = AIMPipeline(backend, selector="first", prefix_bytes=0)
    bound.bank.add(demonstrations)
    expected = bound.generate(queries, max_new_tokens=2, log_probs=True)
    assert backend.injector.prefixes.info()["states"] == 0
    reusing = AIMPipeline(backend, selector="first", prefix_bytes=DEFAULT_BYTES)
    reusing.bank.add(demonstrations)
    for _ in range(2):
        check(reusing.generate(queries, max_new_tokens=2, log_probs=True), expected)
    assert backend.injector.prefixes.info()["states"] == 1
