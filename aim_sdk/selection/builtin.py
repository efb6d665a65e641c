"""The selectors that need no second model."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from aim_sdk.bank.adding import POOLED
from aim_sdk.bank.bank import DemonstrationBank
from aim_sdk.bank.store import Where, query_origin
from aim_sdk.selection.base import Selector
from aim_sdk.support.vectors import blocks, unit
from aim_sdk.types import Matrix, Query

if TYPE_CHECKING:
    from numpy.typing import NDArray


class FirstSelector(Selector):
    """The demonstrations that were added first, in that order."""

    name = "first"

    def scores(self, bank: DemonstrationBank, queries: Sequence[Query], candidates: NDArray[np.intp]) -> Matrix:
        return np.broadcast_to(-np.arange(len(candidates), dtype=np.float32), (len(queries), len(candidates)))

    def order(self, best: NDArray[np.intp]) -> NDArray[np.intp]:
        return np.sort(best)


class RandomSelector(Selector):
    """A draw for every query; the same seed, query and bank give the same draw, whatever else is asked.

    Args:
        seed: another one gives other draws.
        where, balance: see [`Selector`][aim_sdk.selection.base.Selector].
    """

    name = "random"

    def __init__(self, seed: int = 0, *, where: Where | None = None, balance: str | None = None) -> None:
        super().__init__(where=where, balance=balance)
        self.seed = seed

    def scores(self, bank: DemonstrationBank, queries: Sequence[Query], candidates: NDArray[np.intp]) -> Matrix:
        return np.stack([self._draw(query, len(candidates)) for query in queries])

    def _draw(self, query: Query, count: int) -> NDArray[np.float32]:
        name = f"{self.seed} {query_origin(query) if query.id is None else query.id}"
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8])
        return np.random.default_rng(seed).random(count, np.float32)


class ReadingSelector(Selector):
    """The most similar readings: the mean state over the tokens that have seen the image and not the answer.

    The bank's mean is taken off first: all states of an LLM point much the same way, and what tells them apart is the
    rest.
    """

    name = "reading"
    _centre: tuple[weakref.ref[Matrix], NDArray[np.float64], NDArray[np.float64]] | None = None

    def scores(self, bank: DemonstrationBank, queries: Sequence[Query], candidates: NDArray[np.intp]) -> Matrix:
        vectors = bank.features(POOLED)
        mean, norms = self._centred(vectors)
        asked = unit(bank.pooled_queries(queries) - mean)
        scores = np.empty((len(queries), len(candidates)), np.float32)
        for places, rows in blocks(vectors, candidates):
            scores[:, places] = np.vecdot((rows - mean)[None], asked[:, None]) / norms[candidates[places]]
        return scores

    def _centred(self, vectors: Matrix) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The mean and each vector's distance from it; computed once until the bank changes."""
        if self._centre and self._centre[0]() is vectors:
            return self._centre[1:]
        mean = vectors.mean(0, dtype=np.float64)
        everything = np.arange(len(vectors))
        norms = np.concatenate([np.linalg.norm(rows - mean, axis=1) for _, rows in blocks(vectors, everything)])
        norms[norms <= 1e-9 * np.linalg.norm(mean)] = np.inf  # what is the mean is like nothing
        self._centre = weakref.ref(vectors), mean, norms
        return mean, norms
