"""Runs prompts after their contexts: batches of similar length, and contexts that fit."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar

from aim_sdk.backend.injector import Injector
from aim_sdk.config import PromptFormat
from aim_sdk.errors import ContextLengthError, InputError
from aim_sdk.injection.contexts import NamedContext
from aim_sdk.injection.shots import Shots
from aim_sdk.support.progress import Advance
from aim_sdk.types import Context, FusedTokens, Generation, Query

T = TypeVar("T")

_OWN: Final = (
    *("shots", "demonstrations", "mode", "selector", "max_new_tokens", "batch_size", "progress", "text"),
    *("choices", "schema"),
)
"""What the pipeline takes itself; all else goes to the backend."""
_OF_THE_INJECTOR: Final = ("queries", "query", "contexts", "context", "prompt_format")


def check_names(generation: Iterable[str]) -> None:
    """Refuse a mistyped argument, before anything is read for it.

    Raises:
        InputError: it is almost one of the pipeline's own, or one that the pipeline gives its injector.
    """
    for name in generation:
        if name in _OF_THE_INJECTOR:
            raise InputError(f"{name}= cannot be given to a call: the pipeline passes it to its backend itself.")
        if near := difflib.get_close_matches(name, _OWN, 1, 0.87):  # transformers' min_new_tokens is not as near
            raise InputError(f"no argument named {name!r}. Did you mean {near[0]!r}?")


def fitting(
    contexts: Sequence[NamedContext], shots: Shots, run: Callable[[list[Context]], T]
) -> tuple[T, list[NamedContext]]:
    """Run prompts after their contexts; return what ``run`` made of them, and the contexts that it had.

    If no number of demonstrations was asked for, those farthest from the query are left out until the rest fits the
    backbone's context. A prompt that is too long is refused before any forward, so this costs little.

    Raises:
        ContextLengthError: a number was asked for; or not even one demonstration fits.
    """
    fitted = list(contexts)
    while True:
        try:
            return run([context for context, _ in fitted]), fitted
        except ContextLengthError as error:
            place = 0 if len(fitted) == 1 else error.query
            if not shots.may_be_fewer or place is None or len(fitted[place][0]) < 2:
                raise
            context, keys = fitted[place]
            fitted[place] = context[1:], keys[1:]


def generated(
    injector: Injector,
    queries: Sequence[Query],
    contexts: Sequence[NamedContext],
    shots: Shots,
    *,
    prompt_format: PromptFormat,
    max_new_tokens: int,
    batch_size: int,
    generation: Mapping[str, Any],
    advance: Advance,
) -> list[Generation]:
    """Answer queries in batches of similar length; the answers come in the queries' order.

    Raises:
        InputError: its `query` is the index of the query that cannot be answered, if it is about one query.
    """
    order = sorted(range(len(queries)), key=lambda i: _order(contexts[i][0]))
    answers: dict[int, Generation] = {}
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        asked = [queries[i] for i in batch]

        def run(prompts: list[Context], asked: list[Query] = asked) -> list[Generation]:
            return injector.generate(
                asked, prompts, prompt_format=prompt_format, max_new_tokens=max_new_tokens, **generation
            )

        try:
            made, fitted = fitting([contexts[i] for i in batch], shots, run)
        except InputError as error:
            if error.query is not None:  # its place in the batch
                error.query = batch[error.query]
            raise
        if len(made) != len(batch):
            raise InputError(
                f"{len(made)} answers for {len(batch)} queries; pass each query as often as it is to be answered "
                "instead of num_return_sequences."
            )
        for i, answer, (_, keys) in zip(batch, made, fitted, strict=True):
            answers[i] = replace(answer, demonstrations=keys)
        advance(len(batch))
    return [answers[i] for i in range(len(queries))]


def _order(context: Context) -> tuple[int, tuple[str, ...]]:
    """Batches are of similar length, and equal contexts are next to each other."""
    fused = [item for item in context if isinstance(item, FusedTokens)]
    return sum(map(len, fused)) if fused else len(context), tuple(item.key or "" for item in fused)
