"""The best of many scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from aim_sdk.types import Matrix


def best(scores: Matrix, count: int, labels: NDArray[np.intp] | None = None) -> NDArray[np.intp]:
    """Places of the ``count`` highest scores, best first; equal ones in order.

    ``labels`` (numbers from 0) are taken in turn: the best of each, then the second best, as long as they last.
    """
    if labels is None and count < len(scores) // 4:
        border = np.partition(scores, len(scores) - count)[len(scores) - count]
        places = np.flatnonzero(scores >= border)
        return places[np.argsort(-scores[places], kind="stable")][:count]
    ranked = np.argsort(-scores, kind="stable")
    if labels is None:
        return ranked[:count]
    by_label = ranked[np.argsort(labels[ranked], kind="stable")]
    sizes = np.bincount(labels)
    turn = np.empty(len(scores), np.intp)
    turn[by_label] = np.arange(len(scores)) - (np.cumsum(sizes) - sizes)[labels[by_label]]
    return ranked[np.sort(np.argsort(turn[ranked], kind="stable")[:count])]
