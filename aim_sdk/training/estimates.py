"""Means over held-out episodes with their standard errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

Pair = tuple[float, float]
"""An episode's sum and its weight: a loss and its number of tokens, or a value and 1."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its standard error over ``n`` episodes."""

    mean: float
    error: float
    n: int

    def __format__(self, sign: str) -> str:
        """The mean and its error, or why there is none; without episodes there is no mean either."""
        if not self.n:
            return "not measured: no episode could be used"
        mean = f"{self.mean:{sign}.4f}"
        if math.isnan(self.error):
            return f"{mean} ({'one episode' if self.n == 1 else 'all alike'}: no standard error)"
        return f"{mean} ± {self.error:.4f}"


def of_shares(found: Estimate) -> Estimate:
    """A share of right answers, or a difference of two: where no episode differs, an error of 0 would be certainty."""
    return found if found.error else replace(found, error=math.nan)


def summarize(pairs: Sequence[Pair | None]) -> Estimate:
    """The sums over the weights, and the standard error with episodes as clusters (a ratio of two means)."""
    used = torch.tensor([pair for pair in pairs if pair is not None and pair[1]], dtype=torch.float64)
    if not len(used):
        return Estimate(float("nan"), float("nan"), 0)
    sums, sizes = used.T
    mean = sums.sum() / sizes.sum()
    if len(used) == 1:
        return Estimate(float(mean), float("nan"), 1)
    error = (sums - mean * sizes).std() / sizes.mean() / len(used) ** 0.5
    return Estimate(float(mean), float(error), len(used))


def difference(pairs: Sequence[Pair | None], others: Sequence[Pair | None]) -> Estimate:
    """The mean difference to another row, paired by episode; the error is that of the difference."""
    both = [(a, b) for a, b in zip(pairs, others, strict=True) if a is not None and b is not None]
    return summarize([(value - other, size) for (value, size), (other, same) in both if size == same])
