"""Answers end where they should: at the model's end token, and at a stop string of any length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aim_sdk.backend.answers import clean_answer
from aim_sdk.backend.capabilities import AnswersPlainly, HasVocabulary, capability
from aim_sdk.backend.interfaces import Backend
from aim_sdk.config import PromptFormat
from aim_sdk.testing.compare import require
from aim_sdk.testing.kit import NotApplicable, check, needs
from aim_sdk.testing.precision import close
from aim_sdk.testing.samples import DEMONSTRATIONS, QUERIES
from aim_sdk.testing.steering import exchanged, saying
from aim_sdk.testing.ties import is_tie
from aim_sdk.types import Context, Demonstration

_TEMPLATE = "{image} Q: {text}\nA: {answer}"
_OPEN = PromptFormat.plain(_TEMPLATE)
"""No string ends its answers."""
_TOKENS = 6
_FIRST = 8
"""So many tokens of a vocabulary, from the first, are tried as the end token: there many a tokenizer has it."""
_LAST = 4
"""So many tokens of a demonstration, from the last, are tried as well: what a chat template ends an answer with."""
_STOPS = ("\n###\n", "##")
_ANSWER = "a # cat"
"""Holds a part of each of them."""


@check
@needs(HasVocabulary, AnswersPlainly)
@close("tokens", float32=0, bfloat16=0.03, float16=0.008)
def check_end_token(backend: Backend) -> None:
    """The model's end token ends the answer, whole and streamed, and the other answers of the batch continue.

    Catches an end token that is ignored, so that an answer has garbage after its end, and a batch that ends with its
    first row. The end token is the one after which the plain model says no more. It takes the place of a word that the
    model says (its LM head's output is changed), so that it does not depend on its weights.
    """
    end = _end_token(backend)
    contexts: list[Context] = [[] for _ in QUERIES]
    options: dict[str, Any] = {"prompt_format": _OPEN}
    limit = {**options, "max_new_tokens": _TOKENS}
    usual = backend.injector.generate(QUERIES, contexts, **limit)
    free = [made.token_ids for made in usual]
    if any(end in ids for ids in free):
        raise NotApplicable(f"an answer of the model has ended by itself: the answers' tokens are {free}")
    word = min((token for ids in free for token in ids), key=lambda token: _awkward(token, free))
    with exchanged(backend, word, end):
        found = backend.injector.generate(QUERIES, contexts, **limit)
    for row, (query, ids, made) in enumerate(zip(QUERIES, free, found, strict=True)):
        cut = ids.index(word) if word in ids else len(ids)
        if made.token_ids == ids and cut < len(ids):
            raise NotApplicable("the model's answers do not change with its LM head's output")
        expected = (*ids[:cut], *[end] * (cut < len(ids)))
        what = f"the end token is {end}, and row {row} of a batch"
        if is_tie(backend, query, [], made, usual[row], **limit):  # of the word and another token
            continue
        require(made.token_ids == expected, f"{what} has the tokens {made.token_ids}; expected {expected}")
        if cut == len(ids):
            continue
        short = ""
        if cut:
            short = backend.injector.generate(QUERIES, contexts, **options, max_new_tokens=cut)[row].text
        require(made.text == short, f"{what} is {made.text!r}; expected {short!r}, which comes before it")
        (alone,) = backend.injector.generate([query], [[]], **limit)
        if is_tie(backend, query, [], usual[row], alone, **limit):
            continue
        with exchanged(backend, word, end):
            streamed = "".join(backend.injector.stream(query, [], **limit))
        require(streamed == short, f"the end token is {end}: `stream` gives {streamed!r}; expected {short!r}")


def _awkward(token: int, answers: Sequence[Sequence[int]]) -> tuple[int, bool]:
    """In how many answers a token is, and whether it begins one: best it ends one alone, after other tokens."""
    return sum(token in ids for ids in answers), any(token == ids[0] for ids in answers)


@check
@needs(HasVocabulary)
def check_long_stop_string(backend: Backend) -> None:
    """A stop string of several characters ends an answer, whole and streamed, and a part of it does not.

    Catches stop strings that are compared with one token or one character at a time. The model is made to say an
    answer, the stop string and more (its LM head's output is changed), so that it does not depend on its weights.
    """
    seen: list[str] = []
    shown = Demonstration(QUERIES[0].image, QUERIES[0].text, _ANSWER)
    for stop in _STOPS:
        form = PromptFormat.plain(_TEMPLATE + stop)
        (reading,) = backend.reader.read([shown], prompt_format=form, with_images=False)
        ids = 2 * reading.token_ids[reading.answer_start :].tolist()
        with saying(backend, ids):
            (free,) = backend.injector.generate(QUERIES[:1], [[]], prompt_format=_OPEN, max_new_tokens=len(ids))
        seen.append(free.text)
        if stop not in free.text:
            continue
        options: dict[str, Any] = {"prompt_format": form, "max_new_tokens": len(ids)}
        with saying(backend, ids):
            (made,) = backend.injector.generate(QUERIES[:1], [[]], **options)
        with saying(backend, ids):
            streamed = "".join(backend.injector.stream(QUERIES[0], [], **options))
        expected = clean_answer(free.text, stop)
        for call, found in {"generate": made.text, "stream": streamed}.items():
            require(
                found == expected,
                f"`{call}` with the stop string {stop!r}: {found!r}; expected {expected!r}, as without it the model "
                f"says {free.text!r}",
            )
    if not any(stop in text for stop, text in zip(_STOPS, seen, strict=True)):
        raise NotApplicable(f"the model cannot be made to say {_STOPS} by its LM head's output; it said {seen}")


def _end_token(backend: Backend) -> int:
    """The token after which the plain model's answer is over."""
    (reading,) = backend.reader.read(DEMONSTRATIONS[:1], prompt_format=backend.default_format, with_images=False)
    tried = list(dict.fromkeys([*reading.token_ids[-_LAST:].tolist(), *range(_FIRST)]))
    with saying(backend, tried):
        said = capability(backend, AnswersPlainly).plain_answer(
            QUERIES[0], prompt_format=_OPEN, max_new_tokens=len(tried)
        )
    if not 0 < len(said) < len(tried) or said != tried[: len(said)]:
        raise NotApplicable(f"no end token was found: made to say {tried}, the plain model said {said}")
    return said[-1]
