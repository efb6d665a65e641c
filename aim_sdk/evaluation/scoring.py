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
    cell: Cell, found: Sequence[Mapping[str, Any]], items: Mapping[str, Item], metric: Metric, memory_bytes: int | None
) -> CellAnswers:
    """Give each of a cell's predictions its own score."""
    answered = _answered(found, items)
    scores = metric.per_item(answered) if answered else None
    own = {} if scores is None else dict(zip((a.item.id for a in answered), scores, strict=True))
    predictions = tuple(Prediction(**{**p, "score": own.get(p["item"])}) for p in found)
    return CellAnswers(cell=cell, predictions=predictions, memory_bytes=memory_bytes)


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
