"""The interleaved prompts to measure: from files, or from evaluation tasks."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import chain, zip_longest

from aim_sdk.analysis.attention import InterleavedPrompt
from aim_sdk.answering.queries import NumberedQuery
from aim_sdk.errors import ShotsError
from aim_sdk.evaluation.batches import QueryInContext
from aim_sdk.types import Demonstration


def from_files(
    demonstrations: Sequence[Demonstration], queries: Sequence[NumberedQuery], *, shots: int, seed: int
) -> list[InterleavedPrompt]:
    """Draw ``shots`` demonstrations for each query, never one with the query's own image.

    Raises:
        ShotsError: there are fewer.
    """
    prompts = []
    for item in queries:
        pool = [demonstration for demonstration in demonstrations if demonstration.image != item.query.image]
        _check_shots(shots, len(pool))
        rng = random.Random(f"attention {seed} {item.number}")
        answer = item.line.model_dump().get("answer")
        known = answer if isinstance(answer, str) and answer.strip() else None
        prompts.append(InterleavedPrompt(item.query, rng.sample(pool, shots), known, str(item.number)))
    return prompts


def from_tasks(tasks: Mapping[str, Sequence[QueryInContext]]) -> list[InterleavedPrompt]:
    """The queries of tasks by their names, with the demonstrations that were drawn for each; the tasks take turns."""
    rounds = zip_longest(*([(name, asked) for asked in found] for name, found in tasks.items()))
    return [
        InterleavedPrompt(asked.query, asked.demonstrations, asked.item.answers[0], f"{name} {asked.item.id}")
        for name, asked in filter(None, chain.from_iterable(rounds))
    ]


def _check_shots(shots: int, available: int) -> None:
    if shots > available:
        raise ShotsError(f"{shots} shots asked for, but a query has {available} demonstrations to draw from.")
