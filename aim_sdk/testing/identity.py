"""Injected true embeddings are the text itself: the checks that catch every wrong mask, position id or lost image."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from aim_sdk.backend.interfaces import Backend
from aim_sdk.config import PromptFormat
from aim_sdk.errors import InputError
from aim_sdk.testing.compare import require, require_same_scores, shown
from aim_sdk.testing.kit import CheckFailure, Refused, heart
from aim_sdk.testing.layouts import IMAGE_FIRST, TEXT_FIRST, Compare, in_rows, in_some_layout, same_answers
from aim_sdk.testing.precision import close
from aim_sdk.testing.samples import CHOICES, DEMONSTRATIONS, QUERIES
from aim_sdk.testing.ties import is_tie
from aim_sdk.types import FusedTokens

_ALL = (0, 1, 2)
_MANY = (0, 1, 2, 3, 4, 5, 6, 7)
_SHORT = (3, 5) * 10
_UNEQUAL = (_ALL, (), (1,))
"""Contexts of one batch, by the demonstrations' places."""


@heart
@close("log-probabilities", bfloat16=0.004, float16=0.0005)
def check_identity_forward(backend: Backend) -> None:
    """Scores after injected text equal scores after the written text.

    Tried with eight demonstrations, one of them long, and with twenty short ones. Catches fused tokens at wrong places
    or in wrong order, position ids that count them wrongly, masks that hide them, demonstrations that are left out or
    cut, an image that is lost next to them, a plain format's system text that is changed.
    """
    for places in (_MANY, _SHORT):
        in_some_layout(backend, [places], _same_scores(backend, places))


@heart
@close("log-probabilities", bfloat16=0.004, float16=0.0005)
def check_identity_behind_text(backend: Backend) -> None:
    """The same in a format that writes text before its image.

    Catches fused tokens that are put before the image instead of before the query's whole turn.
    """
    in_some_layout(backend, [_ALL], _same_scores(backend, _ALL), TEXT_FIRST)


@heart
@close("tokens", float32=0, bfloat16=0.004, float16=0.0005)
def check_identity_generate(backend: Backend) -> None:
    """The answer after injected text is the answer after the written text.

    Catches fused tokens that are right in the first forward and wrong once a cache grows: an attention mask or position
    ids that do not grow with it.
    """
    in_some_layout(backend, [_ALL], lambda form, written: same_answers(backend, [_ALL], form, written))


@heart
@close("tokens", float32=0, bfloat16=0.03, float16=0.008)
def check_identity_batch(backend: Backend) -> None:
    """A batch of unlike contexts answers as its rows do alone, after the written text.

    Catches padding that is attended to, positions that start at the padding, rows that come back in another order or
    get each other's fused tokens, prompt tokens that are the batch's.
    """
    in_some_layout(backend, _UNEQUAL, lambda form, written: same_answers(backend, _UNEQUAL, form, written))


@heart
@close("tokens", float32=0, bfloat16=0.03, float16=0.008)
def check_identity_beams(backend: Backend) -> None:
    """With beam search, too, injected text answers as the written text.

    Catches fused tokens that are not repeated for each beam.
    """

    def compare(form: PromptFormat, written: list[PromptFormat]) -> None:
        same_answers(backend, _UNEQUAL, form, written, num_beams=3)

    try:
        in_some_layout(backend, _UNEQUAL, compare, IMAGE_FIRST)
    except InputError as error:
        raise Refused(f"no beam search: {error}") from error


@heart
@close("log-probabilities, tokens", bfloat16=0.03, float16=0.008)
def check_zero_demonstrations(backend: Backend) -> None:
    """No demonstration, and demonstrations of no tokens, are the same prompt, alone and next to others.

    Catches placeholders that an empty context leaves in the prompt.
    """
    form = backend.default_format
    size = backend.fingerprint.embedding_size
    empty = FusedTokens(torch.zeros(0, size, device=backend.device, dtype=backend.dtype))
    bare = backend.injector.score(QUERIES[0], [], CHOICES, prompt_format=form)
    nothing = backend.injector.score(QUERIES[0], [empty], CHOICES, prompt_format=form)
    require_same_scores(nothing, bare, backend, "log-probabilities after empty fused tokens and after nothing")
    others = backend.reader.text_only(DEMONSTRATIONS[:1], prompt_format=form)
    (alone,) = backend.injector.generate(QUERIES[:1], [[]], prompt_format=form, max_new_tokens=4)
    batched, _ = backend.injector.generate(QUERIES[:2], [[], others], prompt_format=form, max_new_tokens=4)
    same = (batched.token_ids, batched.prompt_tokens) == (alone.token_ids, alone.prompt_tokens)
    require(
        same or is_tie(backend, QUERIES[0], [], batched, alone, prompt_format=form),
        f"without demonstrations: {alone}; in a batch with a query that has some: {batched}",
    )


def _same_scores(backend: Backend, places: Sequence[int]) -> Compare:
    def compare(form: PromptFormat, written: list[PromptFormat]) -> None:
        (context,) = in_rows(backend, [places], form)
        found = backend.injector.score(QUERIES[0], context, CHOICES, prompt_format=form)
        expected = backend.injector.score(QUERIES[0], [], CHOICES, prompt_format=written[0])
        try:
            require_same_scores(found, expected, backend, "log-probabilities after injected and after written text")
        except CheckFailure as failure:
            injected, plain = shown(backend, QUERIES[0], context, form), shown(backend, QUERIES[0], [], written[0])
            raise CheckFailure(f"{failure}\ninjected: {injected}\nwritten: {plain}") from None

    return compare
