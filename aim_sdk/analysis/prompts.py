"""The interleaved prompts to measure: from files, or from the tasks that a backend brings."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import chain

from aim_sdk.analysis.attention import InterleavedPrompt
from aim_sdk.answering.queries import NumberedQuery
from aim_sdk.demo.tasks import DemoTask
from aim_sdk.errors import ShotsError
from aim_sdk.types import Demonstration


def from_files(
    demonstrations: Sequence[Demonstration], queries: Sequence[NumberedQuery], *, shots: int, seed: int
) -> list[InterleavedPrompt]:
    """Draw ``shots`` demonstrations for each query, never one of the query's own image.

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


def from_tasks(tasks: Sequence[DemoTask], *, shots: int) -> list[InterleavedPrompt]:
    """Take the first ``shots`` demonstrations of each episode; the tasks take turns.

    Raises:
        ShotsError: an episode has fewer.
    """
    rounds = zip(*([(task.name, episode) for episode in task.episodes] for task in tasks), strict=True)
    prompts = []
    for name, episode in chain.from_iterable(rounds):
        _check_shots(shots, len(episode.demonstrations))
        shown = episode.demonstrations[:shots]
        prompts.append(InterleavedPrompt(episode.query, shown, episode.answer, f"{name} {episode.group}"))
    return prompts


def _check_shots(shots: int, available: int) -> None:
    if shots > available:
        raise ShotsError(f"{shots} shots asked for, but a query has {available} demonstrations to draw from.")
