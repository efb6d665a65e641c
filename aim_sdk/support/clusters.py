"""Standard errors of means whose values are not independent."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import Final

FEWEST: Final = 3
"""The fewest clusters that an error is estimated from: the residuals of two are always equal up to their sign."""


def clustered_error(values: Sequence[float], groups: Sequence[Hashable]) -> float:
    """Standard error of the mean, clustered by ``groups``.

    The usual sandwich estimate: sqrt(G / (G - 1) * sum over clusters of (sum of residuals)^2) / n. NaN if it says
    nothing: for fewer than three clusters, and if all clusters have the same mean (all answers are right, for example),
    where it would be 0 without being certain.
    """
    mean = statistics.fmean(values)
    residuals: dict[Hashable, float] = defaultdict(float)
    for value, group in zip(values, groups, strict=True):
        residuals[group] += value - mean
    clusters, spread = len(residuals), math.fsum(value**2 for value in residuals.values())
    smallest = (1e-12 * max(map(abs, values)) * len(values)) ** 2
    if clusters < FEWEST or spread <= smallest:
        return math.nan
    return math.sqrt(clusters / (clusters - 1) * spread) / len(values)
