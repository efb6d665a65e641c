"""The same prompt twice: demonstrations as fused tokens, and as text that is written into the prompt's opening.

A plain format's system text is written as it is, after BOS and before all else: so any backend can write the other
side of the comparison, and no model code is needed. Where a tokenizer joins the two ends differently than the pieces,
another layout is tried; the prompts' lengths tell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

from aim_sdk.backend.interfaces import Backend
from aim_sdk.config import PromptFormat
from aim_sdk.testing.compare import require, shown
from aim_sdk.testing.kit import CheckFailure, NotApplicable
from aim_sdk.testing.samples import QUERIES, SHOTS
from aim_sdk.testing.ties import is_tie
from aim_sdk.types import FusedTokens

OPENINGS = ("Look.\n", "")
"""The second where the first cannot be compared: some processors strip what comes before a text."""
IMAGE_FIRST = tuple("{image}" + blank + "Q: {text}\nA: {answer}\n" for blank in (" ", "", "\n"))
TEXT_FIRST = tuple("Q: {text}" + around + "A: {answer}\n" for around in ("\n{image}", " ({image}) ", "\n{image}\n"))
"""Fused tokens stand before the text that leads to the image, not between the two."""

_FRAME = "\n\n\n\n"
"""The text that some processors (Gemma 3) write around an image, and keep without it."""

Compare = Callable[[PromptFormat, list[PromptFormat]], None]


def same_answers(
    backend: Backend,
    rows: Sequence[Sequence[int]],
    form: PromptFormat,
    written: Sequence[PromptFormat],
    **generation: Any,
) -> None:
    """Require the answers of a batch of contexts, by the demonstrations' places, to be those after written text."""
    contexts = in_rows(backend, rows, form)
    found = backend.injector.generate(
        QUERIES[: len(rows)], contexts, prompt_format=form, max_new_tokens=6, **generation
    )
    for query, context, one, own in zip(QUERIES, contexts, found, written, strict=False):
        (expected,) = backend.injector.generate([query], [[]], prompt_format=own, max_new_tokens=6, **generation)
        same = (one.token_ids, one.prompt_tokens) == (expected.token_ids, expected.prompt_tokens)
        if not same and not is_tie(backend, query, [], one, expected, prompt_format=own, **generation):
            other = one.prompt_tokens != expected.prompt_tokens
            order = "the prompts have other numbers of tokens: rows in another order, or counted with their padding?\n"
            raise CheckFailure(
                f"{order if other else ''}after injected text: {one}\n  {shown(backend, query, context, form)}\n"
                f"after written text: {expected}\n  {shown(backend, query, [], own)}"
            )


def in_some_layout(
    backend: Backend, rows: Sequence[Sequence[int]], compare: Compare, templates: Sequence[str] = IMAGE_FIRST
) -> None:
    """Compare in the layouts whose written prompts have as many tokens, until one agrees.

    Raises:
        CheckFailure: what the first of them had to say, or that the prompts' lengths do not add up.
        NotApplicable: there is none, although the injected tokens are counted right.
    """
    failures: list[CheckFailure] = []
    lengths = ""
    for opening, template, frame in product(OPENINGS, templates, ("", _FRAME)):
        if failures and not opening:
            break
        form, written = _layout(rows, template, opening, frame)
        contexts = in_rows(backend, rows, form)
        found = _lengths(backend, [form] * len(rows), contexts)
        bare = _lengths(backend, [form] * len(rows), [[]] * len(rows))
        counted = [length + sum(map(len, context)) for length, context in zip(bare, contexts, strict=True)]
        require(
            found == counted,
            f"prompts with {list(map(len, rows))} demonstrations' injected text have {found} tokens; expected "
            f"{counted}, which without them and all of their tokens make: are demonstrations dropped, or cut?",
        )
        expected = _lengths(backend, written, [[]] * len(rows))
        if found != expected:
            lengths = lengths or (
                f"injected, the demonstrations make a prompt of {found[0]} tokens, written as text one of "
                f"{expected[0]}:\n  {shown(backend, QUERIES[0], contexts[0], form)}\n"
                f"  {shown(backend, QUERIES[0], [], written[0])}"
            )
            continue
        try:
            compare(form, written)
        except CheckFailure as failure:
            failures.append(failure)
        else:
            return
    if failures:
        raise failures[0]
    raise NotApplicable(
        "no prompt without demonstrations repeats one with them: the processor writes text around an image, or the "
        f"system text of a plain format is not written as it is, or a template's blanks are lost; {lengths}"
    )


def in_rows(backend: Backend, rows: Sequence[Sequence[int]], form: PromptFormat) -> list[list[FusedTokens]]:
    """The true embeddings of the demonstrations' texts, by their places, as contexts."""
    return [backend.reader.text_only([SHOTS[place] for place in row], prompt_format=form) for row in rows]


def _layout(
    rows: Sequence[Sequence[int]], template: str, opening: str, frame: str
) -> tuple[PromptFormat, list[PromptFormat]]:
    """A format, and for each row the format whose opening holds the row's demonstrations as text."""
    pieces = [template.format(image=frame, text=d.text, answer=d.answer) for d in SHOTS]
    texts = [opening + "".join(pieces[place] for place in row) for row in rows]
    return (
        PromptFormat.plain(template, system=opening or None),
        [PromptFormat.plain(template, system=text or None) for text in texts],
    )


def _lengths(backend: Backend, forms: Sequence[PromptFormat], contexts: Sequence[Sequence[FusedTokens]]) -> list[int]:
    answers = [
        backend.injector.generate([query], [context], prompt_format=form, max_new_tokens=1)[0]
        for query, context, form in zip(QUERIES, contexts, forms, strict=False)
    ]
    return [answer.prompt_tokens for answer in answers]
