"""From answers to the numbers of the table."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from aim_sdk.evaluation.items import Answered, Item
from aim_sdk.evaluation.metrics import errors
from aim_sdk.evaluation.metrics.metric import Metric
from aim_sdk.evaluation.results import Cell, CellAnswers, Prediction, Score
from aim_sdk.support.clusters import clustered_error
from aim_sdk.types import Mode


def answers_of(
    cell: Cell, batches: Sequence[Mapping[str, Any]], items: Mapping[str, Item], metric: Metric
) -> CellAnswers:
    """A cell's answers from its batches in the journal, each with its own score, in the items' order."""
    by_item = {p["item"]: p for record in batches for p in record["predictions"]}
    found = [by_item[name] for name in items]
    answered = _answered(found, items)
    scores = metric.per_item(answered) if answered else None
    own = {} if scores is None else dict(zip((a.item.id for a in answered), scores, strict=True))
    predictions = tuple(Prediction(**{**p, "score": own.get(p["item"])}) for p in found)
    peaks = [record["memory_bytes"] for record in batches if record.get("memory_bytes") is not None]
    timed = tuple(seconds for record in batches for seconds in record.get("first_token_seconds", ()))
    return CellAnswers(
        cell=cell, predictions=predictions, memory_bytes=max(peaks, default=None), first_token_seconds=timed
    )


def score(cells: Sequence[CellAnswers], items: Mapping[str, Item], metric: Metric) -> Score:
    """One number of the table, from the cells of its seeds."""
    first = cells[0].cell
    predictions = [p for cell in cells for p in cell.predictions]
    too_long = sum(not p.fits for p in predictions)
    refused = sum(p.refused is not None for p in predictions)
    by_seed = {c.cell.seed: math.nan if too_long or refused else _score_of(c.predictions, items, metric) for c in cells}
    return Score(
        task=first.task,
        mode=first.mode,
        shots=first.shots,
        metric=metric.name,
        value=statistics.fmean(by_seed.values()),
        standard_error=math.nan if too_long or refused else _error(cells, items, metric),
        seeds_error=errors.over_seeds(list(by_seed.values())),
        by_seed=by_seed,
        queries=len(cells[0].predictions),
        too_long=too_long,
        refused=refused,
        prompt_tokens=_median(p.prompt_tokens for p in predictions),
        seconds=_median(p.seconds for p in predictions),
        first_token_seconds=_median(seconds for cell in cells for seconds in cell.first_token_seconds),
        memory_bytes=max((c.memory_bytes for c in cells if c.memory_bytes is not None), default=None),
    )


def table(
    answers: Iterable[CellAnswers], items: Mapping[str, Mapping[str, Item]], metrics: Mapping[str, Metric]
) -> list[Score]:
    """All numbers of the table, in the order of the cells."""
    groups: dict[tuple[str, Mode, int], list[CellAnswers]] = defaultdict(list)
    for cell in answers:
        groups[cell.cell.task, cell.cell.mode, cell.cell.shots].append(cell)
    return [score(cells, items[task], metrics[task]) for (task, _, _), cells in groups.items()]


def mean(scores: Sequence[Score]) -> list[Score]:
    """The mean over a run's tasks of each mode and number of shots that all of them have.

    None if there is one task, or if they have different metrics. The tasks' errors are independent: their queries
    are different ones.
    """
    tasks = {score.task for score in scores}
    if len(tasks) < 2 or len({score.metric for score in scores}) > 1:
        return []
    groups: dict[tuple[Mode, int], list[Score]] = defaultdict(list)
    for score in scores:
        groups[score.mode, score.shots].append(score)
    return [_mean(found) for found in groups.values() if len(found) == len(tasks)]


def _mean(scores: Sequence[Score]) -> Score:
    seeds = [seed for seed in scores[0].by_seed if all(seed in score.by_seed for score in scores)]
    return Score(
        task=f"mean of {len(scores)} tasks",
        mode=scores[0].mode,
        shots=scores[0].shots,
        metric=scores[0].metric,
        value=statistics.fmean(score.value for score in scores),
        standard_error=math.hypot(*(score.standard_error for score in scores)) / len(scores),
        seeds_error=math.nan,
        by_seed={seed: statistics.fmean(score.by_seed[seed] for score in scores) for seed in seeds},
        queries=sum(score.queries for score in scores),
        too_long=sum(score.too_long for score in scores),
        refused=sum(score.refused for score in scores),
        prompt_tokens=statistics.fmean(score.prompt_tokens for score in scores),
        seconds=statistics.fmean(score.seconds for score in scores),
        first_token_seconds=statistics.fmean(score.first_token_seconds for score in scores),
    )


def _answered(predictions: Iterable[Mapping[str, Any]], items: Mapping[str, Item]) -> list[Answered]:
    return [
        Answered(items[p["item"]], p["answer"], tuple(p["log_probs"]) if p.get("log_probs") else None)
        for p in predictions
        if p["answer"] is not None
    ]


def _score_of(predictions: Sequence[Prediction], items: Mapping[str, Item], metric: Metric) -> float:
    own = [p.score for p in predictions if p.score is not None]
    return statistics.fmean(own) if own else metric.score(_seed(predictions, items))


def _error(cells: Sequence[CellAnswers], items: Mapping[str, Item], metric: Metric) -> float:
    """Over queries: a query's answers of all seeds are one draw."""
    own = [(p.score, p.item) for cell in cells for p in cell.predictions if p.score is not None]
    if own:
        return clustered_error([score for score, _ in own], [item for _, item in own])
    return errors.of_score(metric, [_seed(cell.predictions, items) for cell in cells])


def _seed(predictions: Iterable[Prediction], items: Mapping[str, Item]) -> list[Answered]:
    return _answered((p.model_dump() for p in predictions), items)


def _median(values: Iterable[float | None]) -> float:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else math.nan
