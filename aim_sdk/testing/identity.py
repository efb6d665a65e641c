"""Injected true embeddings are the text itself: the checks that catch every wrong mask, position id or lost image.

The plain side of each comparison is the same text written into the prompt's opening, so no model code is needed. Where
a tokenizer joins the two ends differently than the pieces, another layout is tried; the prompts' lengths tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from aim_sdk.config import PromptFormat
from aim_sdk.errors import CapabilityError, InputError
from aim_sdk.interfaces import Backend
from aim_sdk.testing.compare import require, require_same_scores
from aim_sdk.testing.kit import CheckFailure, NotApplicable, check
from aim_sdk.testing.samples import CHOICES, DEMONSTRATIONS, QUERIES
from aim_sdk.types import FusedTokens

_UNEQUAL = ((0, 1, 2), (), (1,))
"""Contexts of one batch, by the demonstrations' places."""


@check
def check_identity_forward(backend: Backend) -> None:
    """Scores behind injected text equal scores behind the written text.

    Catches fused tokens at wrong places or in wrong order, position ids that count them wrongly, masks that hide them,
    an image that is lost beside them.
    """

    def compare(form: PromptFormat, written: list[PromptFormat]) -> None:
        context = backend.reader.text_only(DEMONSTRATIONS, prompt_format=form)
        found = backend.injector.score(QUERIES[0], context, CHOICES, prompt_format=form)
        expected = backend.injector.score(QUERIES[0], [], CHOICES, prompt_format=written[0])
        require_same_scores(found, expected, backend, "log-probabilities behind injected and behind written text")

    _in_some_layout(backend, [_UNEQUAL[0]], compare)


@check
def check_identity_generate(backend: Backend) -> None:
    """The answer behind injected text is the answer behind the written text.

    Catches fused tokens that are right in the first forward and wrong once a cache grows.
    """
    _in_some_layout(backend, [_UNEQUAL[0]], lambda form, written: _same_answers(backend, [_UNEQUAL[0]], form, written))


@check
def check_identity_batch(backend: Backend) -> None:
    """A batch of unlike contexts answers as its rows do alone, behind the written text.

    Catches padding that is attended to, rows that get each other's fused tokens, positions that start at the padding.
    """
    _in_some_layout(backend, _UNEQUAL, lambda form, written: _same_answers(backend, _UNEQUAL, form, written))


@check
def check_identity_beams(backend: Backend) -> None:
    """With beam search, too, injected text answers as the written text.

    Catches fused tokens that are not repeated for each beam.
    """

    def compare(form: PromptFormat, written: list[PromptFormat]) -> None:
        _same_answers(backend, _UNEQUAL, form, written, num_beams=3)

    try:
        _in_some_layout(backend, _UNEQUAL, compare)
    except InputError as error:
        raise NotApplicable(f"no beam search: {error}") from error


@check
def check_zero_demonstrations(backend: Backend) -> None:
    """No demonstration, and demonstrations of no tokens, are the same prompt, alone and beside others.

    Catches placeholders that an empty context leaves in the prompt.
    """
    form = backend.default_format
    empty = FusedTokens(backend.input_embeddings[:0])
    bare = backend.injector.score(QUERIES[0], [], CHOICES, prompt_format=form)
    nothing = backend.injector.score(QUERIES[0], [empty], CHOICES, prompt_format=form)
    require_same_scores(nothing, bare, backend, "log-probabilities behind empty fused tokens and behind nothing")
    others = backend.reader.text_only(DEMONSTRATIONS[:1], prompt_format=form)
    (alone,) = backend.injector.generate(QUERIES[:1], [[]], prompt_format=form, max_new_tokens=4)
    beside, _ = backend.injector.generate(QUERIES[:2], [[], others], prompt_format=form, max_new_tokens=4)
    require(
        (beside.token_ids, beside.prompt_tokens) == (alone.token_ids, alone.prompt_tokens),
        f"without demonstrations: {alone}; in a batch beside a query with some: {beside}",
    )


@check
def check_plain_model(backend: Backend) -> None:
    """Without demonstrations the backend answers as the plain backbone does.

    Catches everything that an adapter does to a prompt without being asked.
    """
    for query in QUERIES:
        try:
            expected = backend.plain_answer(query, prompt_format=backend.default_format, max_new_tokens=6)
        except CapabilityError as error:
            raise NotApplicable(str(error)) from error
        (found,) = backend.injector.generate([query], [[]], prompt_format=backend.default_format, max_new_tokens=6)
        ids = list(found.token_ids)
        require(bool(ids) and ids == list(expected[: len(ids)]), f"tokens {ids}; the plain backbone gives {expected}")


def _same_answers(
    backend: Backend,
    rows: Sequence[Sequence[int]],
    form: PromptFormat,
    written: Sequence[PromptFormat],
    **generation: Any,
) -> None:
    queries = QUERIES[: len(rows)]
    found = backend.injector.generate(
        queries, _contexts(backend, rows, form), prompt_format=form, max_new_tokens=6, **generation
    )
    for query, one, own in zip(queries, found, written, strict=True):
        (expected,) = backend.injector.generate([query], [[]], prompt_format=own, max_new_tokens=6, **generation)
        require(
            (one.token_ids, one.prompt_tokens) == (expected.token_ids, expected.prompt_tokens),
            f"behind injected text: {one}; behind written text: {expected}",
        )


def _in_some_layout(
    backend: Backend, rows: Sequence[Sequence[int]], compare: Callable[[PromptFormat, list[PromptFormat]], None]
) -> None:
    """Compare in the layouts whose written prompts have as many tokens, until one agrees.

    Raises:
        CheckFailure: what the first of them had to say, or that the prompts' lengths do not add up.
        NotApplicable: there is none, although the injected tokens are counted right.
    """
    failures: list[CheckFailure] = []
    for form, written in _layouts(rows):
        contexts = _contexts(backend, rows, form)
        found = _lengths(backend, [form] * len(rows), contexts)
        bare = _lengths(backend, [form] * len(rows), [[]] * len(rows))
        counted = [length + sum(map(len, context)) for length, context in zip(bare, contexts, strict=True)]
        require(found == counted, f"prompts with injected text have {found} tokens; expected {counted}")
        if found != _lengths(backend, written, [[]] * len(rows)):
            continue
        try:
            compare(form, written)
        except CheckFailure as failure:
            failures.append(failure)
        else:
            return
    if failures:
        raise failures[0]
    raise NotApplicable("the processor writes text round an image that no prompt without one repeats")


def _layouts(rows: Sequence[Sequence[int]]) -> Iterator[tuple[PromptFormat, list[PromptFormat]]]:
    """Yield a format, and for each row the format whose opening holds the row's demonstrations as text."""
    for opening in ("", "Look.\n"):
        for blank in (" ", "", "\n"):
            template = f"{{image}}{blank}Q: {{text}}\nA: {{answer}}\n"
            pieces = [f"{blank}Q: {d.text}\nA: {d.answer}\n" for d in DEMONSTRATIONS]
            texts = [opening + "".join(pieces[place] for place in row) for row in rows]
            yield (
                PromptFormat.plain(template, system=opening or None),
                [PromptFormat.plain(template, system=text or None) for text in texts],
            )


def _contexts(backend: Backend, rows: Sequence[Sequence[int]], form: PromptFormat) -> list[list[FusedTokens]]:
    return [backend.reader.text_only([DEMONSTRATIONS[place] for place in row], prompt_format=form) for row in rows]


def _lengths(backend: Backend, forms: Sequence[PromptFormat], contexts: Sequence[Sequence[FusedTokens]]) -> list[int]:
    answers = [
        backend.injector.generate([query], [context], prompt_format=form, max_new_tokens=1)[0]
        for query, context, form in zip(QUERIES, contexts, forms, strict=False)
    ]
    return [answer.prompt_tokens for answer in answers]
