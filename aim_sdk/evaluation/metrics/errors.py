"""Standard errors of scores: over queries, over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from aim_sdk.evaluation.items import Answered
from aim_sdk.evaluation.metrics.metric import Metric
from aim_sdk.support.clusters import FEWEST

T = TypeVar("T")


def over_seeds(values: Sequence[float]) -> float:
    """Standard error of the mean of the seeds' scores, sd / sqrt(n); NaN for one seed."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def of_score(metric: Metric, seeds: Sequence[Sequence[Answered]]) -> float:
    """Standard error, over queries, of the mean of the seeds' scores, by `bootstrap`; NaN if there are few queries.

    For metrics whose answers have no scores of their own; if they have, the error is clustered in closed form
    (`aim_sdk.support.clusters.clustered_error`). ``seeds`` holds each seed's answers to the same queries: a query's
    answers of all seeds are one draw, so more seeds do not count as more queries.
    """
    by_id = [{a.item.id: a for a in answered} for answered in seeds]

    def mean(drawn: Sequence[str]) -> float:
        return statistics.fmean(metric.score([answers[item] for item in drawn]) for answers in by_id)

    return bootstrap(mean, list(by_id[0]))


def bootstrap(
    score: Callable[[Sequence[T]], float], groups: Sequence[T], *, resamples: int = 1000, seed: int = 0
) -> float:
    """Standard deviation of a score over resamples of ``groups``, each drawn with replacement and as a whole.

    A group is what was not drawn independently: a query with its answers of all seeds. For a paired comparison it is
    a query with its answers of both runs, and ``score`` a difference. Resamples on which the score is not defined
    (NaN) are left out; NaN if that says nothing: for fewer than three groups, or if hardly any resample has a score or
    all have the same one.
    """
    if len(groups) < FEWEST:
        return math.nan
    generator = np.random.default_rng(seed)
    draws = (generator.integers(len(groups), size=len(groups)) for _ in range(resamples))
    scores = [value for draw in draws if not math.isnan(value := score([groups[i] for i in draw]))]
    return statistics.stdev(scores) or math.nan if len(scores) > 1 else math.nan
