"""Measures exact-match accuracy, context tokens and latency of every mode and number of shots."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aim_sdk.demo.tasks import DemoTask, Episode
from aim_sdk.pipeline import AIMPipeline
from aim_sdk.support import clusters
from aim_sdk.types import Mode

MODES: tuple[Mode, ...] = ("text-only", "interleaved", "aim", "nearest", "no-image")
UNTIMED: tuple[Mode, ...] = ("no-image", "nearest")
"""The control, and what makes no prompt."""
ALL = "all tasks"
BATCH = 70
MAX_NEW_TOKENS = 4


@dataclass(frozen=True, slots=True)
class Outcome:
    """One answer."""

    task: str
    mode: Mode
    shots: int
    episode: int
    group: str
    answer: str
    correct: bool
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class Cell:
    """One number of the table, over ``n`` episodes."""

    task: str
    mode: Mode
    shots: int
    n: int
    sets: int
    """Sets of demonstrations that the episodes share: what the standard error is clustered by."""
    accuracy: float
    standard_error: float
    """NaN where it cannot be estimated: see `aim_sdk.support.clusters.clustered_error`."""
    prompt_tokens: float
    latency_ms: float | None


def cells_of(shots: Sequence[int]) -> list[tuple[Mode, int]]:
    """The rows and columns: zero-shot once, every other mode at every k."""
    return [("zero-shot", 0), *((mode, k) for mode in MODES for k in shots if k)]


def answer_all(
    pipe: AIMPipeline, tasks: Sequence[DemoTask], shots: Sequence[int], advance: Callable[[int], None]
) -> list[Outcome]:
    """Answer every episode under every mode and k, a batch at a time; ``advance`` is called with each."""
    numbered = [(task.name, index, episode) for task in tasks for index, episode in enumerate(task.episodes)]
    outcomes = []
    for mode, k in cells_of(shots):
        for start in range(0, len(numbered), BATCH):
            batch = numbered[start : start + BATCH]
            outcomes += _answer(pipe, mode, k, batch)
            advance(len(batch))
    return outcomes


def _answer(pipe: AIMPipeline, mode: Mode, shots: int, batch: Sequence[tuple[str, int, Episode]]) -> list[Outcome]:
    queries = [episode.query for *_, episode in batch]
    if mode == "nearest":  # the same k demonstrations vote
        first = [episode.demonstrations[:shots] for *_, episode in batch]
        answers = [(next(iter(shares)), 0) for shares in pipe.nearest(queries, demonstrations=first)]
    else:
        made = pipe.generate(
            queries,
            demonstrations=[episode.demonstrations for *_, episode in batch],
            shots=shots,
            mode=mode,
            max_new_tokens=MAX_NEW_TOKENS,
            batch_size=len(batch),
        )
        answers = [(answer.text, answer.prompt_tokens) for answer in made]
    return [
        Outcome(
            task=task,
            mode=mode,
            shots=shots,
            episode=index,
            group=f"{task} {episode.group}",
            answer=text,
            correct=text.casefold() == episode.answer.casefold(),
            prompt_tokens=tokens,
        )
        for (task, index, episode), (text, tokens) in zip(batch, answers, strict=True)
    ]


def time_all(
    pipe: AIMPipeline, tasks: Sequence[DemoTask], shots: Sequence[int], repeats: int, advance: Callable[[int], None]
) -> dict[tuple[Mode, int], float]:
    """Median milliseconds of one query to its first token, bank warm, images encoded; of all but `UNTIMED`."""
    medians: dict[tuple[Mode, int], float] = {}
    for mode, k in cells_of(shots):
        if mode in UNTIMED:
            continue
        times = []
        for i in range(repeats):
            episode = tasks[i % len(tasks)].episodes[i // len(tasks)]
            started = time.perf_counter()
            pipe.generate([episode.query], demonstrations=episode.demonstrations, shots=k, mode=mode, max_new_tokens=1)
            times.append(1e3 * (time.perf_counter() - started))
            advance(1)
        medians[mode, k] = statistics.median(times)
    return medians


def summarize(outcomes: Sequence[Outcome], latencies: dict[tuple[Mode, int], float]) -> list[Cell]:
    """One cell for each task, mode and k, and for all tasks together."""
    groups: dict[tuple[str, Mode, int], list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        for task in (outcome.task, ALL):
            groups[task, outcome.mode, outcome.shots].append(outcome)
    return [
        Cell(
            task=task,
            mode=mode,
            shots=k,
            n=len(found),
            sets=len({outcome.group for outcome in found}),
            accuracy=sum(outcome.correct for outcome in found) / len(found),
            standard_error=clustered_error(found),
            prompt_tokens=statistics.median(outcome.prompt_tokens for outcome in found),
            latency_ms=latencies.get((mode, k)),
        )
        for (task, mode, k), found in groups.items()
    ]


def clustered_error(outcomes: Sequence[Outcome]) -> float:
    """Standard error of the accuracy, clustered by the demonstrations that episodes share."""
    return clusters.clustered_error([outcome.correct for outcome in outcomes], [outcome.group for outcome in outcomes])
