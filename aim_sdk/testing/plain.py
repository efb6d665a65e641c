"""The adapter's prompts are those that the plain backbone's own documentation describes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import cycle

from aim_sdk.backend.capabilities import AnswersPlainly, Interleaves, capability, find, why_not
from aim_sdk.backend.interfaces import Backend
from aim_sdk.config import PromptFormat
from aim_sdk.errors import CapabilityError, FormatError, InputError
from aim_sdk.testing.compare import require, shown, spelled
from aim_sdk.testing.kit import CheckFailure, NotApplicable, Refused, heart, needs
from aim_sdk.testing.layouts import TEXT_FIRST
from aim_sdk.testing.precision import close
from aim_sdk.testing.samples import DEMONSTRATIONS, LONG, PICTURES, QUERIES, SHOTS, SYSTEM
from aim_sdk.testing.ties import is_tie
from aim_sdk.types import Demonstration, Query

_TOKENS = 6
_MANY_TOKENS = 20
_SHOTS = (2, 0, 1)
"""Demonstrations before a query, by their places."""
_MORE_SHOTS = (2, 0, 1, 3, 5, 6)
_ODD = "  {Which} of {} is it, }{?  "
"""Blanks round it and braces, which are text like any other."""


@heart
@needs(AnswersPlainly)
@close("tokens", float32=0, bfloat16=0.015, float16=0.003)
def check_plain_model(backend: Backend) -> None:
    """Without demonstrations the backend answers as the plain backbone does, whatever format, picture and text.

    Catches everything that an adapter does to a prompt without being asked: another BOS, a system text that is
    dropped, an image that is moved, squashed or cut, or in other colours, a text without its blanks or braces or cut at
    some length, places that are wrong once an answer is long.
    """
    default, *others = _formats(backend)
    for image, query in zip(PICTURES, cycle(QUERIES), strict=False):
        _require_plain(backend, Query(image, query.text), (), default)
    for form in others:
        _require_plain(backend, QUERIES[1], (), form)
    _require_plain(backend, Query(QUERIES[0].image, LONG), (), default, tokens=_MANY_TOKENS)
    for form in (default, others[-1]):
        _require_plain(backend, Query(QUERIES[2].image, _ODD), (), form)


@heart
@needs(AnswersPlainly)
@close("tokens", float32=0, bfloat16=0.015, float16=0.003)
def check_identity_chat(backend: Backend) -> None:
    """In the default format, also with a system text, fused tokens of true embeddings are the plain model's text turns.

    Catches fused tokens that stand before the system text or after the query's role, a system text or an end of turn
    that is lost, and position ids or a mask that are wrong after fused tokens or from the second new token on.
    """
    _with_demonstrations(backend, list(_formats(backend))[:2], with_images=False)


@heart
@close("tokens", float32=0, bfloat16=0.015, float16=0.003)
def check_interleaved(backend: Backend) -> None:
    """Demonstrations with their images in one prompt are the plain model's, in number, order and place.

    Catches images that are dropped, misplaced or exchanged, demonstrations that are left out, and position ids or a
    mask that are wrong after several images.
    """
    if find(backend, Interleaves) is None:
        try:
            backend.injector.generate(
                QUERIES[:1], [DEMONSTRATIONS[:1]], prompt_format=backend.default_format, max_new_tokens=1
            )
        except (InputError, CapabilityError) as error:
            raise Refused(f"one prompt holds one image: {error}") from error
        raise CheckFailure("it says that a prompt holds one image, and answered one with two")
    if (reason := why_not(backend, AnswersPlainly)) is not None:
        raise NotApplicable(reason)
    _with_demonstrations(backend, list(_formats(backend)), with_images=True)


def _formats(backend: Backend) -> Iterator[PromptFormat]:
    """The default format, alone and with a system text (where the family takes one), and a plain one."""
    default = backend.default_format
    yield default
    form = default.model_copy(update={"system": SYSTEM})
    try:
        backend.injector.generate(QUERIES[:1], [[]], prompt_format=form, max_new_tokens=1)
        yield form
    except FormatError:  # a template that knows no system text
        pass
    yield PromptFormat.plain(TEXT_FIRST[0], system=SYSTEM)


def _with_demonstrations(backend: Backend, forms: Sequence[PromptFormat], *, with_images: bool) -> None:
    shots, many = ([SHOTS[place] for place in places] for places in (_SHOTS, _MORE_SHOTS))
    for form, chosen in [(forms[0], shots[:1]), (forms[0], many), *((form, shots) for form in forms)]:
        _require_plain(backend, QUERIES[0], chosen, form, with_images)


def _require_plain(
    backend: Backend,
    query: Query,
    shots: Sequence[Demonstration],
    form: PromptFormat,
    with_images: bool = True,
    tokens: int = _TOKENS,
) -> None:
    expected = capability(backend, AnswersPlainly).plain_answer(
        query, prompt_format=form, max_new_tokens=tokens, demonstrations=shots, with_images=with_images
    )
    context = shots if with_images else backend.reader.text_only(shots, prompt_format=form)
    (made,) = backend.injector.generate([query], [context], prompt_format=form, max_new_tokens=tokens)
    ids = list(made.token_ids)
    plain = replace(made, token_ids=tuple(expected[: len(ids)]))
    require(
        bool(ids) and (made == plain or is_tie(backend, query, context, plain, made, prompt_format=form)),
        f"tokens {ids}; the plain backbone gives {list(expected)} after {len(shots)} demonstrations"
        f"{'' if with_images else ' without their images'}, in {spelled(form)}. The prompt:\n  "
        f"{shown(backend, query, context, form)}",
    )
