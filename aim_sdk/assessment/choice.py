"""Which setting is best, and what it is worth on items that did not choose it.

The best of several settings looks better on the items that chose it than it is. So the items are split into folds (the
answers in equal shares), the setting of each fold is chosen on all the others, and its scores there are the estimate.
"""

from __future__ import annotations

import math
import random
import statistics
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from aim_sdk.support.clusters import clustered_error
from aim_sdk.support.permutations import permutation_p

FOLDS = 5

Scores = NDArray[np.float64]
"""``(settings, items)``; higher is better."""


class Comparison(BaseModel):
    """One way to answer against another, on the same items."""

    model_config = ConfigDict(frozen=True)
    other: str = Field(description="what it is compared with")
    value: float = Field(description="the other's mean score")
    gain: float = Field(description="the mean of the differences, in the metric's unit")
    standard_error: float | None = Field(description="of the gain; none if all differences are equal")
    p: float = Field(description="two-sided, by sign flips of the items' differences")


def folds_of(answers: Sequence[str], folds: int = FOLDS, seed: int = 0) -> NDArray[np.intp]:
    """The fold of each item; each answer is spread evenly over the folds."""
    rng = random.Random(seed)
    by_answer: dict[str, list[int]] = defaultdict(list)
    for place, answer in enumerate(answers):
        by_answer[answer].append(place)
    made = np.zeros(len(answers), np.intp)
    turn = 0
    for places in by_answer.values():
        rng.shuffle(places)
        for place in places:
            made[place], turn = turn % folds, turn + 1
    return made


def best(scores: Scores) -> int:
    """The setting of the highest mean; of equal ones the first."""
    return int(np.argmax(np.round(scores.mean(1), 12)))


def cross_fitted(scores: Scores, folds: NDArray[np.intp]) -> NDArray[np.intp]:
    """The setting of each item, chosen on the items of the other folds."""
    chosen = np.zeros(scores.shape[1], np.intp)
    for fold in np.unique(folds):
        others = folds != fold
        chosen[~others] = best(scores[:, others]) if others.any() else 0
    return chosen


def of_chosen(scores: Scores, chosen: NDArray[np.intp]) -> NDArray[np.float64]:
    """Each item's score in its setting, ``(items,)``."""
    return scores[chosen, np.arange(scores.shape[1])]


def compared(ours: NDArray[np.float64], theirs: NDArray[np.float64], other: str) -> Comparison:
    """A paired comparison of two scores of the same items, ``(items,)`` each."""
    differences = (ours - theirs).tolist()
    return Comparison(
        other=other,
        value=float(theirs.mean()),
        gain=statistics.fmean(differences),
        standard_error=error_of(differences),
        p=permutation_p(differences),
    )


def error_of(values: Sequence[float]) -> float | None:
    """Standard error of the mean of independent values; None where it says nothing."""
    found = clustered_error(values, range(len(values)))
    return None if math.isnan(found) else found
