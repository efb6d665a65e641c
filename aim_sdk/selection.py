"""Selectors: which of the bank's demonstrations a query is shown.

Chosen by name (:func:`get_selector`) or made and passed as an object; a selector of your own subclasses
:class:`Selector` and scores candidates.

========= ==================================================================================================
random    a draw of its own for every query, seeded by the query's id
first     those that were added first, the same for every query
reading   the most similar pooled readings, which the bank already holds: no second model
rices     the most similar images by CLIP (Retrieval-based In-Context Examples Selection)
text      the most similar texts by CLIP
mmices    the most similar images, and among them the most similar texts
========= ==================================================================================================

The most similar demonstration stands last, next to the query. A query's own demonstration is never chosen: the one with
its id, or, where it has none, with its image and text.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from aim_sdk.bank.bank import POOLED, DemonstrationBank, origin
from aim_sdk.bank.store import Listed, Matrix, Where, matches
from aim_sdk.errors import InputError, did_you_mean
from aim_sdk.types import Query

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Selector(ABC):
    """Scores the bank's demonstrations for each query; the best ones are shown.

    Args:
        where: only demonstrations with that metadata are candidates: ``{field: value}`` or ``{field: [values]}``.
        balance: a metadata field; every value of it is shown as often as any other (up to one), the best of each.
    """

    name: ClassVar[str]

    def __init__(self, *, where: Where | None = None, balance: str | None = None) -> None:
        self.where, self.balance = where or {}, balance

    @abstractmethod
    def scores(self, bank: DemonstrationBank, queries: Sequence[Query], candidates: NDArray[np.intp]) -> Matrix:
        """Return ``(queries, candidates)``: the higher, the rather shown.

        ``candidates`` are places in ``bank.listed()`` and in the rows of ``bank.features(...)``.
        """

    def select(self, bank: DemonstrationBank, queries: Sequence[Query], shots: int | None) -> list[list[str]]:
        """Choose the keys of each query's demonstrations, in the order of the prompt.

        Args:
            bank: where they are.
            queries: each is chosen for on its own.
            shots: how many; None takes all candidates.

        Raises:
            ShotsError: a query has fewer candidates.
            InputError: a candidate lacks the field to balance by.
        """
        if shots == 0 or not queries:
            return [[] for _ in queries]
        listed = bank.listed()
        candidates = np.arange(len(listed))
        if self.where:
            candidates = np.array([n for n in candidates if matches(listed[n].metadata, self.where)], np.intp)
        labels = self._labels(listed, candidates)
        scores = self.scores(bank, queries, candidates)
        chosen = []
        for query, row in zip(queries, scores, strict=True):
            allowed = np.flatnonzero(np.isin(candidates, bank.own(query), invert=True))
            bank.check_shots(shots or 0, len(allowed))
            best = _best(
                row[allowed], len(allowed) if shots is None else shots, labels[allowed] if self.balance else None
            )
            chosen.append([listed[candidates[allowed[place]]].key for place in self.order(best)])
        return chosen

    def order(self, best: NDArray[np.intp]) -> NDArray[np.intp]:
        """Put the chosen places, best first, in the order of the prompt: the best stands last."""
        return best[::-1]

    def _labels(self, listed: Sequence[Listed], candidates: NDArray[np.intp]) -> NDArray[np.intp]:
        if self.balance is None:
            return np.zeros(len(candidates), np.intp)
        values = [listed[n].metadata.get(self.balance) for n in candidates]
        if None in values:
            names = {name for entry in listed for name in entry.metadata}
            raise InputError(
                f"balance={self.balance!r}: {values.count(None)} of {len(values)} demonstrations have no such metadata."
                f"{did_you_mean(self.balance, names)}"
            )
        numbers = {value: number for number, value in enumerate(dict.fromkeys(values))}
        return np.array([numbers[value] for value in values], np.intp)


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
        where, balance: see :class:`Selector`.
    """

    name = "random"

    def __init__(self, seed: int = 0, *, where: Where | None = None, balance: str | None = None) -> None:
        super().__init__(where=where, balance=balance)
        self.seed = seed

    def scores(self, bank: DemonstrationBank, queries: Sequence[Query], candidates: NDArray[np.intp]) -> Matrix:
        return np.stack([self._draw(query, len(candidates)) for query in queries])

    def _draw(self, query: Query, count: int) -> NDArray[np.float32]:
        name = f"{self.seed} {origin(query) if query.id is None else query.id}"
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8])
        return np.random.default_rng(seed).random(count, np.float32)


class ReadingSelector(Selector):
    """The most similar readings: the mean state over the tokens that have seen the image and not the answer.

    The bank's mean is taken off first: all states of an LLM point much the same way, and what tells them apart is the
    rest.
    """

    name = "reading"

    def scores(self, bank: DemonstrationBank, queries: Sequence[Query], candidates: NDArray[np.intp]) -> Matrix:
        vectors = bank.features(POOLED)[candidates]
        mean = vectors.mean(0)
        asked = np.stack([bank.pooled_query(query) for query in queries])
        return cosine(asked - mean, vectors - mean)


_BUILT_IN: Mapping[str, tuple[str, str]] = {
    "first": ("aim_sdk.selection", "FirstSelector"),
    "mmices": ("aim_sdk.clip", "MmicesSelector"),
    "random": ("aim_sdk.selection", "RandomSelector"),
    "reading": ("aim_sdk.selection", "ReadingSelector"),
    "rices": ("aim_sdk.clip", "RicesSelector"),
    "text": ("aim_sdk.clip", "TextSelector"),
}


def get_selector(selector: str | Selector) -> Selector:
    """Return a built-in selector by name, with its default settings; a selector as it is.

    Raises:
        InputError: no such name.
    """
    if isinstance(selector, Selector):
        return selector
    if selector not in _BUILT_IN:
        raise InputError(
            f"unknown selector {selector!r}.{did_you_mean(str(selector), _BUILT_IN)} "
            f"Expected one of: {', '.join(_BUILT_IN)}, or a Selector."
        )
    module, name = _BUILT_IN[selector]
    made = getattr(import_module(module), name)()
    assert isinstance(made, Selector)
    return made


def cosine(queries: Matrix, vectors: Matrix) -> Matrix:
    """Cosine similarity ``(queries, vectors)``, exact; a zero vector is like nothing."""
    return unit(queries) @ unit(vectors).T


def unit(vectors: Matrix) -> Matrix:
    """Scale each row to length 1."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(norms == 0, 1, norms)


def _best(scores: NDArray[np.float32], count: int, labels: NDArray[np.intp] | None) -> NDArray[np.intp]:
    """Places of the ``count`` highest scores, best first; equal ones in order. ``labels`` are taken in turns."""
    if labels is None and count < len(scores) // 4:
        border = np.partition(scores, len(scores) - count)[len(scores) - count]
        places = np.flatnonzero(scores >= border)
    else:
        places = np.arange(len(scores))
    ranked = places[np.argsort(-scores[places], kind="stable")]
    if labels is not None:
        turn = np.zeros(len(scores), np.intp)
        for label in np.unique(labels):
            same = ranked[labels[ranked] == label]
            turn[same] = np.arange(len(same))
        ranked = ranked[np.argsort(turn[ranked], kind="stable")]
    return ranked[:count]
