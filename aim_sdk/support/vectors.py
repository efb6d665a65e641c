"""Similarities of many vectors, a part at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from aim_sdk.types import Matrix

_ROWS = 256
"""Rows that are compared with all queries while they are in the processor's cache."""


def dot(queries: Matrix, vectors: Matrix, candidates: NDArray[np.intp]) -> Matrix:
    """Products ``(queries, candidates)`` with those rows, which are in rising order; of unit vectors, the cosines.

    Equal rows have equal scores, wherever they stand and whatever else is asked: ``vecdot`` computes each on its own, a
    matrix product does not.
    """
    products = np.empty((len(queries), len(candidates)), np.float32)
    for places, rows in blocks(vectors, candidates):
        np.vecdot(rows[None], queries[:, None], out=products[:, places])
    return products


def unit(vectors: NDArray[np.floating]) -> NDArray[np.floating]:
    """Scale each row to length 1; a zero vector stays."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(norms == 0, 1, norms)


def blocks(vectors: Matrix, candidates: NDArray[np.intp]) -> Iterator[tuple[slice, Matrix]]:
    """Those rows, a few at a time: a copy of all of them would not fit."""
    everything = len(candidates) == len(vectors)
    for start in range(0, len(candidates), _ROWS):
        places = slice(start, start + _ROWS)
        yield places, vectors[places] if everything else vectors[candidates[places]]
