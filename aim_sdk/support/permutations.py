"""Paired tests without assumptions about the scores: sign flips, and Holm's correction for several tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

_FLIPS: Final = 10_000
_ALL_FLIPS: Final = 12
"""If at most this many queries differ, all sign flips are tried."""


def permutation_p(differences: Sequence[float]) -> float:
    """Two-sided p value of a sum of differences under flips of their signs.

    If all have the same size, this is the exact sign test (McNemar's, for binary scores under one seed). Otherwise all
    flips are tried if at most 12 differences are not 0; above that, 10,000 random ones (seeded), with the observed one
    counted among them (Phipson and Smyth, 2010). `scipy.stats.permutation_test` gives the same in eight times the time
    (5,000 queries: 4.9 s, here 0.6 s), for each row of a table.
    """
    values = np.array([value for value in differences if value])
    if not len(values):
        return 1.0
    if np.ptp(np.abs(values)) < 1e-9 * np.abs(values).max():
        return _sign_test(int((values > 0).sum()), len(values))
    observed = abs(values.sum()) - 1e-9 * np.abs(values).max()  # equal sums may differ in their last digits
    if len(values) <= _ALL_FLIPS:
        signs = 1 - 2 * ((np.arange(2 ** len(values))[:, None] >> np.arange(len(values))) & 1)
        return float((np.abs(signs @ values) >= observed).mean())
    generator = np.random.default_rng(0)
    reached = sum(abs(values.sum() - 2 * _coins(generator, len(values)) @ values) >= observed for _ in range(_FLIPS))
    return float((reached + 1) / (_FLIPS + 1))


def _sign_test(plus: int, count: int) -> float:
    """Two-sided probability of at least as uneven a split of ``count`` fair coins."""
    few = min(plus, count - plus)
    whole = math.lgamma(count + 1) - count * math.log(2)
    logs = [whole - math.lgamma(k + 1) - math.lgamma(count - k + 1) for k in range(few + 1)]
    return min(1.0, 2 * math.fsum(map(math.exp, logs)))


def _coins(generator: np.random.Generator, count: int) -> NDArray[np.float64]:
    """``count`` fair zeros and ones: random bits are ten times faster than random numbers."""
    return np.unpackbits(np.frombuffer(generator.bytes(-(-count // 8)), np.uint8), count=count).astype(float)


def holm_corrected(values: Sequence[float | None]) -> list[float | None]:
    """P values corrected for all tests that are reported together (Holm, 1979); None stays None."""
    tested = sorted((p, place) for place, p in enumerate(values) if p is not None)
    corrected, largest = dict[int, float](), 0.0
    for rank, (p, place) in enumerate(tested):
        largest = max(largest, min(1.0, p * (len(tested) - rank)))
        corrected[place] = largest
    return [corrected.get(place) for place in range(len(values))]
