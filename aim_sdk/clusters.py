"""Standard errors of means whose values are not independent."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Hashable, Sequence


def clustered_error(values: Sequence[float], groups: Sequence[Hashable]) -> float:
    """Standard error of the mean, clustered by ``groups``; NaN where there is one group.

    The usual sandwich estimate: sqrt(G / (G - 1) * sum over clusters of (sum of residuals)^2) / n.
    """
    mean = statistics.fmean(values)
    residuals: dict[Hashable, float] = defaultdict(float)
    for value, group in zip(values, groups, strict=True):
        residuals[group] += value - mean
    clusters = len(residuals)
    if clusters < 2:
        return math.nan
    return math.sqrt(clusters / (clusters - 1) * sum(value**2 for value in residuals.values())) / len(values)
