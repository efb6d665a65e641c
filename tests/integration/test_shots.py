"""What stands before a query is one value, by default safe: `Shots`, `Query` or a pair, and what fits the context."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from aim_sdk import AIMPipeline, Demonstration, Query, Shots
from aim_sdk.errors import ContextLengthError, InputError, ShotsError
from aim_sdk.selection import FirstSelector, ReadingSelector

CHOICES = ["a lynx", "a fox"]


@pytest.fixture(scope="module")
def shared(tiny: Callable[[str], Path]) -> AIMPipeline:
    torch.manual_seed(0)
    pipe = AIMPipeline.from_pretrained("llava", model=tiny("llava-1.5"), projector="residual", device="cpu")
    torch.nn.init.normal_(pipe.projector.linear.weight)
    return pipe


@pytest.fixture
def pipe(shared: AIMPipeline, pictures: list[Image.Image]) -> Iterator[AIMPipeline]:
    """Its bank holds ten demonstrations of two answers."""
    shared.bank.add([Demonstration(pictures[n % 8], f"What is it, {n}?", CHOICES[n % 2]) for n in range(10)])
    yield shared
    shared.bank.remove(*shared.bank)


@pytest.fixture
def query(pictures: list[Image.Image]) -> Query:
    return Query(pictures[5], "And this?")


def test_a_query_is_a_query_or_an_image_and_its_text(pipe: AIMPipeline, query: Query) -> None:
    expected = pipe.generate([query], max_new_tokens=4)[0].text
    assert pipe(query, max_new_tokens=4) == pipe(query.image, query.text, max_new_tokens=4) == expected
    for pieces in (
        pipe.stream(query, max_new_tokens=4),
        pipe.stream(query.image, query.text, max_new_tokens=4),
    ):
        assert "".join(pieces) == expected
    pair: Any = (query.image, query.text)
    assert pipe.score(query, CHOICES) == pipe.score(pair, CHOICES)
    assert pipe(pair, max_new_tokens=4) == expected
    with pytest.raises(InputError, match="two texts"):
        pipe(query, "What else?")
    with pytest.raises(InputError, match="query is int"):
        pipe(7)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["aim", "text-only", "interleaved", "zero-shot", "no-image", "nearest"])
def test_one_value_is_what_the_keywords_are(pipe: AIMPipeline, query: Query, mode: Any) -> None:
    chosen = ReadingSelector(balance=None)
    keywords: dict[str, Any] = {"shots": 3, "mode": mode, "selector": chosen}
    value = Shots(3, mode=mode, selector=chosen)
    assert pipe.generate([query], shots=value, max_new_tokens=4) == pipe.generate([query], max_new_tokens=4, **keywords)
    assert pipe.score(query, CHOICES, shots=value) == pipe.score(query, CHOICES, **keywords)
    assert pipe.classify([query], CHOICES, shots=value) == pipe.classify([query], CHOICES, **keywords)
    assert list(pipe.stream(query, shots=value, max_new_tokens=4)) == list(
        pipe.stream(query, max_new_tokens=4, **keywords)
    )


def test_a_value_can_be_used_again(pipe: AIMPipeline, query: Query) -> None:
    given = [entry.demonstration for entry in pipe.bank.values()][:3]
    value = Shots(demonstrations=iter(given))
    first = pipe.generate([query], shots=value, max_new_tokens=4)
    assert pipe.generate([query], shots=value, max_new_tokens=4) == first
    assert first == pipe.generate([query], demonstrations=given, max_new_tokens=4)
    assert len(pipe.contexts([query], shots=value)[0]) == 3


@pytest.mark.parametrize("name", ["mode", "selector", "demonstrations"])
def test_what_a_value_holds_is_not_told_twice(pipe: AIMPipeline, query: Query, name: str) -> None:
    told: dict[str, Any] = {"mode": "aim", "selector": "first", "demonstrations": []}
    with pytest.raises(InputError, match=rf"pass {name} to it: Shots\({name}="):
        pipe(query, shots=Shots(2), **{name: told[name]})


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: Shots(-1), "shots=-1; expected a whole number of at least 0, or None for the default"),
        (lambda: Shots(2.5), r"shots=2\.5; expected a whole number"),
        (lambda: Shots(mode="aims"), r"no mode named 'aims'\. Did you mean 'aim'"),
        (lambda: Shots(selector="readin"), r"no selector named 'readin'\. Did you mean 'reading'"),
        (lambda: Shots(demonstrations=[1]), "demonstrations"),
        (lambda: Shots(selector="first", demonstrations=[]), "nothing is chosen; pass one"),
        (lambda: Shots(demonstrations=iter([])), "consumed before"),
    ],
)
def test_a_bad_value_is_refused_when_it_is_made(made: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        made()


def test_by_default_eight_similar_ones_are_shown(pipe: AIMPipeline, query: Query) -> None:
    (answer,) = pipe.generate([query], max_new_tokens=4)
    (keys,) = ReadingSelector().select(pipe.bank.view(), [query], 8)
    assert answer.demonstrations == tuple(keys)
    assert answer == pipe.generate([query], shots=8, selector="reading", max_new_tokens=4)[0]
    (label,) = pipe.classify([query], CHOICES)
    assert label.demonstrations == tuple(keys)
    pipe.bank.remove(*list(pipe.bank)[3:])
    assert len(pipe.generate([query], max_new_tokens=4)[0].demonstrations) == 3


@pytest.mark.parametrize("mode", ["aim", "text-only", "interleaved"])
def test_by_default_as_many_are_shown_as_fit(
    shared: AIMPipeline, pictures: list[Image.Image], query: Query, mode: Any
) -> None:
    """The nearest stay, and the answer is that of asking for just so many."""
    shared.bank.add([Demonstration(pictures[n], "What is it? " * (150 + n), CHOICES[n % 2]) for n in range(8)])
    other = Query(pictures[6], "What is it? " * 70)
    try:
        with pytest.raises(ContextLengthError):
            shared.generate([query], shots=8, mode=mode)
        answers = shared.generate([query, other], mode=mode, max_new_tokens=4)
        for asked, answer in zip((query, other), answers, strict=True):
            count = len(answer.demonstrations)
            assert 0 < count < 8
            (near,) = ReadingSelector().select(shared.bank.view(), [asked], 8)
            assert answer.demonstrations == tuple(near[-count:])
            assert answer == shared.generate([asked], shots=count, mode=mode, max_new_tokens=4)[0]
            with pytest.raises(ContextLengthError):
                shared.generate([asked], shots=count + 1, mode=mode, max_new_tokens=4)
            assert shared(asked, mode=mode, max_new_tokens=4) == answer.text
            assert "".join(shared.stream(asked, mode=mode, max_new_tokens=4)) == answer.text
        assert len(shared.classify([query], CHOICES, mode=mode)[0].demonstrations) > 0
        assert all(score < 0 for score in shared.score(query, CHOICES, mode=mode))
        given = [entry.demonstration for entry in shared.bank.values()]
        with pytest.raises(ContextLengthError):  # what was given is shown, or refused
            shared.generate([query], demonstrations=given, mode=mode)
    finally:
        shared.bank.remove(*shared.bank)


def test_a_query_that_is_too_long_by_itself_is_refused(pipe: AIMPipeline, pictures: list[Image.Image]) -> None:
    with pytest.raises(ContextLengthError):
        pipe(pictures[0], "What is it? " * 3000)


def test_first_shows_all_queries_the_same(pipe: AIMPipeline, pictures: list[Image.Image]) -> None:
    answers = pipe.generate(
        [Query(pictures[3], "What?"), Query(pictures[4], "Who?")], selector=FirstSelector(), max_new_tokens=2
    )
    assert [answer.demonstrations for answer in answers] == [tuple(list(pipe.bank)[:8])] * 2


def test_what_a_vote_cannot_be_told(pipe: AIMPipeline, query: Query) -> None:
    with pytest.raises(InputError, match="mode='text-only', but here the demonstrations vote"):
        pipe.nearest([query], shots=Shots(3, mode="text-only"))
    with pytest.raises(ShotsError, match="shots=0: no demonstration votes"):
        pipe.nearest([query], shots=0)
    for temperature in (None, "x", 0):
        with pytest.raises(InputError, match="temperature"):
            pipe.nearest([query], temperature=temperature)  # type: ignore[arg-type]


def test_choices_are_checked_wherever_they_are_given(pipe: AIMPipeline, query: Query) -> None:
    given: list[Any] = [[], iter([]), None, 3, {"a": 1}, {"a", "b"}, ["a", None], [" "], [1]]
    for choices in given:
        with pytest.raises(InputError, match="choices"):
            pipe.token_log_probs(query, choices)
        with pytest.raises(InputError, match="choices"):
            pipe.score(query, choices)


@pytest.mark.parametrize("name", ["shot", "demonstration", "maxnewtokens", "modes"])
def test_a_mistyped_argument_is_named_at_once(pipe: AIMPipeline, query: Query, name: str) -> None:
    with pytest.raises(InputError, match=rf"no argument named '{name}'\. Did you mean "):
        pipe(query, **{name: 2})
    with pytest.raises(InputError, match="no argument named"):
        pipe.stream(query, **{name: 2})
    assert pipe.generate([query], min_new_tokens=2, max_new_tokens=3), "transformers' own are passed on"
    for name in ("prompt_format", "contexts"):
        with pytest.raises(InputError, match=f"{name}= cannot be given to a call"):
            pipe.generate([query], **{name: None})


def test_pairs(pipe: AIMPipeline, pictures: list[Image.Image]) -> None:
    pair = (pictures[4], "What shape?")
    with pytest.raises(
        InputError, match=r"'What shape\?' is not a file; one image with its text is \[\(image, text\)\]"
    ):
        pipe.generate(pair)
    labels = pipe.classify([pair, Query(*pair)], CHOICES)
    assert labels[0].probabilities == pytest.approx(labels[1].probabilities, abs=1e-5)
    assert labels[0].demonstrations == labels[1].demonstrations
    assert labels[0].image is pictures[4]


def test_labels_have_the_same_demonstrations_for_all(pipe: AIMPipeline, pictures: list[Image.Image]) -> None:
    given = [entry.demonstration for entry in pipe.bank.values()]
    with pytest.raises(InputError, match="all images are labelled after the same ones"):
        pipe.classify(pictures[:2], CHOICES, text="What?", shots=Shots(demonstrations=[given[:1], given[1:2]]))
