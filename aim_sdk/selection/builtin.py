"""The selectors that need no second model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from aim_sdk.bank.adding import POOLED
from aim_sdk.bank.store import Where, query_origin
from aim_sdk.bank.view import BankView
from aim_sdk.selection.base import Selector
from aim_sdk.support.vectors import blocks, unit
from aim_sdk.types import Matrix, Query

if TYPE_CHECKING:
    from numpy.typing import NDArray


class FirstSelector(Selector):
    """The demonstrations that were added first, in that order."""

    name = "first"

    def scores(self, view: BankView, queries: Sequence[Query], candidates: NDArray[np.intp]) -> Matrix:
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

    def scores(self, view: BankView, queries: Sequence[Query], candidates: NDArray[np.intp]) -> Matrix:
        return np.stack([self._draw(query, len(candidates)) for query in queries])

    def _draw(self, query: Query, count: int) -> NDArray[np.float32]:
        name = f"{self.seed} {query_origin(query) if query.id is None else query.id}"
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8])
        return np.random.default_rng(seed).random(count, np.float32)


class ReadingSelector(Selector):
    """The most similar readings: the mean state over the tokens that have seen the image and not the answer.

    The bank's mean is subtracted first: all states of an LLM point in much the same direction, and only the rest tells
    them apart.
    """

    name = "reading"

    def scores(self, view: BankView, queries: Sequence[Query], candidates: NDArray[np.intp]) -> Matrix:
        mean, _ = view.centred(POOLED)
        return cosines(view, unit(view.pooled_queries(queries) - mean), candidates)


def cosines(view: BankView, directions: NDArray[np.floating], candidates: NDArray[np.intp]) -> Matrix:
    """Cosines ``(n, candidates)`` of unit vectors ``(n, hidden)`` with the bank's readings, relative to their mean.

    In float32, from a mean in float32, whose distance from the true mean is added: the numbers are those of float64 to
    about 1e-7, in half the time.
    """
    mean, norms = view.centred(POOLED)
    near, narrow = mean.astype(np.float32), directions.astype(np.float32)[:, None]
    missed = (directions @ (near - mean))[:, None]
    scores = np.empty((len(directions), len(candidates)), np.float32)
    for places, rows in blocks(view.features(POOLED), candidates):
        scores[:, places] = (np.vecdot((rows - near)[None], narrow) + missed) / norms[candidates[places]]
    return scores
