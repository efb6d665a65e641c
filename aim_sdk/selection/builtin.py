"""Selectors: which of the bank's demonstrations a query is shown.

Chosen by name (`get_selector`) or made and passed as an object; a selector of your own subclasses
[`Selector`][aim_sdk.selection.builtin.Selector] and scores candidates.

========= ==================================================================================================
random    a draw of its own for every query, seeded by the query's id
first     those that were added first, the same for every query
reading   the most similar pooled readings, which the bank already holds: no second model
rices     the most similar images by CLIP (Retrieval-based In-Context Examples Selection)
text      the most similar texts by CLIP
mmices    the most similar images, and among them the most similar texts
========= ==================================================================================================

The most similar demonstration stands last, next to the query. A query's own demonstrations are never chosen: those with
its id, and those with its image and text.
"""

from __future__ import annotations

import hashlib
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, TypeAlias

import numpy as np

from aim_sdk.bank.adding import POOLED
from aim_sdk.bank.bank import DemonstrationBank
from aim_sdk.bank.store import Listed, Matrix, Where, matches, query_origin
from aim_sdk.errors import InputError, ShotsError, did_you_mean
from aim_sdk.types import Query

if TYPE_CHECKING:
    from numpy.typing import NDArray

Ranked: TypeAlias = tuple[str, float]
"""A demonstration's key and its score."""
Order: TypeAlias = "Callable[[NDArray[np.intp]], NDArray[np.intp]]"

_SCORES = 1 << 25
"""Scores that are held at once: more queries are chosen for in parts."""
_ROWS = 256
"""Rows that are compared with all queries while they are in the processor's cache."""


class Selector(ABC):
    """Scores the bank's demonstrations for each query; the best ones are shown. Threads may share one.

    Args:
        where: only demonstrations with that metadata are candidates: ``{field: value}`` or ``{field: [values]}``.
        balance: a metadata field; every value of it is shown as often as any other (up to one), the best of each.
    """

    name: ClassVar[str]
    where: Where = MappingProxyType({})
    balance: str | None = None
    among: frozenset[str] | None = None
    """Only demonstrations of these keys are candidates; None: all."""
    _known: tuple[tuple[object, ...], NDArray[np.intp], NDArray[np.intp] | None] | None = None

    def __init__(self, *, where: Where | None = None, balance: str | None = None) -> None:
        self.where, self.balance = MappingProxyType(dict(where or {})), balance

    @abstractmethod
    def scores(self, bank: DemonstrationBank, queries: Sequence[Query], candidates: NDArray[np.intp]) -> Matrix:
        """Return ``(queries, candidates)``: the higher, the rather shown; of equal ones, what was added first.

        ``candidates`` are places in ``bank.listed()`` and in the rows of ``bank.features(...)``, in rising order, at
        least one. The query's own demonstrations may be among them; they are left out later. Many queries come in
        several calls, so a query's scores must not depend on the others.
        """

    def select(self, bank: DemonstrationBank, queries: Sequence[Query], shots: int | None) -> list[list[str]]:
        """Choose the keys of each query's demonstrations, in the order of the prompt.

        Args:
            bank: where they are.
            queries: each is chosen for on its own.
            shots: how many; None takes all candidates.

        Raises:
            ShotsError: a query has fewer candidates, or no demonstration is as ``where`` says.
            InputError: a candidate lacks the field to balance by.
        """
        return [[key for key, _ in found] for found in self._chosen(bank, queries, shots, self.order)]

    def ranked(self, bank: DemonstrationBank, queries: Sequence[Query], shots: int | None) -> list[list[Ranked]]:
        """Like [`select`][aim_sdk.selection.builtin.Selector.select], but the best first, and each key with its score."""
        return self._chosen(bank, queries, shots, lambda best: best)

    def order(self, best: NDArray[np.intp]) -> NDArray[np.intp]:
        """Put the chosen places, best first, in the order of the prompt: the best stands last."""
        return best[::-1]

    def _chosen(
        self, bank: DemonstrationBank, queries: Sequence[Query], shots: int | None, order: Order
    ) -> list[list[Ranked]]:
        if shots == 0:
            return [[] for _ in queries]
        step = max(1, _SCORES // max(1, len(bank)))
        parts = [queries[start : start + step] for start in range(0, len(queries), step)]
        return [found for part in parts for found in self._part(bank, part, shots, order)]

    def _part(
        self, bank: DemonstrationBank, queries: Sequence[Query], shots: int | None, order: Order
    ) -> list[list[Ranked]]:
        listed = bank.listed()
        candidates, labels = self._candidates(listed)
        if not len(candidates):
            bank.check_shots(shots or 0, 0)
            return [[] for _ in queries]
        chosen = []
        for query, row in zip(queries, self._checked_scores(bank, queries, candidates), strict=True):
            allowed = others(bank, query, candidates)
            self._check_shots(bank, shots or 0, len(allowed), len(listed))
            count = len(allowed) if shots is None else shots
            places = allowed[order(best(row[allowed], count, None if labels is None else labels[allowed]))]
            keys = [listed[place].key for place in candidates[places].tolist()]
            chosen.append(list(zip(keys, row[places].tolist(), strict=True)))
        if (now := bank.listed()) is not listed and now != listed:
            # Another thread or process has changed the bank meanwhile: the places may be those of other demonstrations.
            return self._part(bank, queries, shots, order)
        return chosen

    def _candidates(self, listed: Sequence[Listed]) -> tuple[NDArray[np.intp], NDArray[np.intp] | None]:
        """Places of the candidates and the numbers of their labels; looked up once until the bank changes."""
        known = self._known
        looked_at = (listed, self.where, self.balance, self.among)
        if known and all(a is b for a, b in zip(known[0], looked_at, strict=True)):
            return known[1:]
        candidates = np.arange(len(listed))
        if self.where:
            candidates = np.array([n for n, e in enumerate(listed) if matches(e.metadata, self.where)], np.intp)
            if len(listed) and not len(candidates):
                near = "".join(did_you_mean(name, _fields(listed)) for name in self.where.keys() - _fields(listed))
                raise ShotsError(f"where={dict(self.where)}: none of {len(listed)} demonstrations is so.{near}")
        if self.among is not None:
            candidates = np.array([n for n in candidates.tolist() if listed[n].key in self.among], np.intp)
        labels = None if self.balance is None else self._labels(listed, candidates, self.balance)
        self._known = looked_at, candidates, labels
        return candidates, labels

    def _labels(self, listed: Sequence[Listed], candidates: NDArray[np.intp], field: str) -> NDArray[np.intp]:
        values = [listed[n].metadata.get(field) for n in candidates.tolist()]
        if None in values:
            raise InputError(
                f"balance={field!r}: {values.count(None)} of {len(values)} demonstrations have no such metadata."
                f"{did_you_mean(field, _fields(listed) - {field})}"
            )
        numbers = {value: number for number, value in enumerate(dict.fromkeys(values))}
        return np.array([numbers[value] for value in values], np.intp)

    def _checked_scores(
        self, bank: DemonstrationBank, queries: Sequence[Query], candidates: NDArray[np.intp]
    ) -> Matrix:
        scores = np.asarray(self.scores(bank, queries, candidates))
        expected = (len(queries), len(candidates))
        if scores.shape != expected or scores.dtype.kind not in "fiub":
            raise InputError(
                f"{type(self).__name__}.scores returned {scores.dtype} of shape {scores.shape}; expected float32 of "
                f"shape {expected}: a score for each query and candidate."
            )
        if scores.dtype.kind != "f":
            scores = scores.astype(np.float32)
        if np.isnan(scores).any():
            raise InputError(f"{type(self).__name__}.scores returned NaN: it cannot be ranked.")
        return scores

    def _check_shots(self, bank: DemonstrationBank, shots: int, available: int, held: int) -> None:
        if available < shots <= held:
            raise ShotsError(
                f"{shots} shots asked for, but only {available} of the bank's {held} demonstrations may be shown: "
                f"{f'where={dict(self.where)}, and a' if self.where else 'a'} query's own are left out. "
                "Pass a smaller `shots`."
            )
        bank.check_shots(shots, available)


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
        where, balance: see [`Selector`][aim_sdk.selection.builtin.Selector].
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
        asked = unit(np.stack([bank.pooled_query(query) for query in queries]) - mean)
        scores = np.empty((len(queries), len(candidates)), np.float32)
        for places, rows in _blocks(vectors, candidates):
            scores[:, places] = np.vecdot((rows - mean)[None], asked[:, None]) / norms[candidates[places]]
        return scores

    def _centred(self, vectors: Matrix) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The mean and each vector's distance from it; computed once until the bank changes."""
        if self._centre and self._centre[0]() is vectors:
            return self._centre[1:]
        mean = vectors.mean(0, dtype=np.float64)
        everything = np.arange(len(vectors))
        norms = np.concatenate([np.linalg.norm(rows - mean, axis=1) for _, rows in _blocks(vectors, everything)])
        norms[norms <= 1e-9 * np.linalg.norm(mean)] = np.inf  # what is the mean is like nothing
        self._centre = weakref.ref(vectors), mean, norms
        return mean, norms


_BUILT_IN: Mapping[str, tuple[str, str]] = {
    "first": ("aim_sdk.selection.builtin", "FirstSelector"),
    "mmices": ("aim_sdk.clip.encoder", "MmicesSelector"),
    "random": ("aim_sdk.selection.builtin", "RandomSelector"),
    "reading": ("aim_sdk.selection.builtin", "ReadingSelector"),
    "rices": ("aim_sdk.clip.encoder", "RicesSelector"),
    "text": ("aim_sdk.clip.encoder", "TextSelector"),
}


def get_selector(selector: str | Selector) -> Selector:
    """Return a built-in selector by name, with its default settings; a selector as it is.

    Raises:
        InputError: no such name.
        MissingDependencyError: it needs a package that is not installed.
    """
    if isinstance(selector, Selector):
        return selector
    if not isinstance(selector, str) or selector not in _BUILT_IN:
        raise InputError(
            f"unknown selector {selector!r}.{did_you_mean(str(selector), _BUILT_IN)} "
            f"Expected one of: {', '.join(_BUILT_IN)}, or a Selector."
        )
    return _built_in(selector)


@cache  # what one has looked up (CLIP's weights, the bank's mean) serves the next call that names it
def _built_in(selector: str) -> Selector:
    module, name = _BUILT_IN[selector]
    made = getattr(import_module(module), name)()
    assert isinstance(made, Selector)
    return made


def others(bank: DemonstrationBank, query: Query, candidates: NDArray[np.intp]) -> NDArray[np.intp]:
    """Places among the candidates of those that are not the query's own."""
    return np.flatnonzero(np.isin(candidates, bank.own(query), invert=True))


def dot(queries: Matrix, vectors: Matrix, candidates: NDArray[np.intp]) -> Matrix:
    """Products ``(queries, candidates)`` with those rows, which stand in rising order; of unit vectors, the cosines.

    Equal rows have equal scores, wherever they stand and whatever else is asked: ``vecdot`` computes each on its own, a
    matrix product does not.
    """
    products = np.empty((len(queries), len(candidates)), np.float32)
    for places, rows in _blocks(vectors, candidates):
        np.vecdot(rows[None], queries[:, None], out=products[:, places])
    return products


def unit(vectors: NDArray[np.floating]) -> NDArray[np.floating]:
    """Scale each row to length 1; a zero vector stays."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(norms == 0, 1, norms)


def best(scores: Matrix, count: int, labels: NDArray[np.intp] | None = None) -> NDArray[np.intp]:
    """Places of the ``count`` highest scores, best first; equal ones in order.

    ``labels`` (numbers from 0) are taken in turns: the best of each, then the second best, as long as they last.
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


def _blocks(vectors: Matrix, candidates: NDArray[np.intp]) -> Iterator[tuple[slice, Matrix]]:
    """Those rows, some at a time: a copy of all would not fit."""
    everything = len(candidates) == len(vectors)
    for start in range(0, len(candidates), _ROWS):
        places = slice(start, start + _ROWS)
        yield places, vectors[places] if everything else vectors[candidates[places]]


def _fields(listed: Sequence[Listed]) -> set[str]:
    return {name for entry in listed for name in entry.metadata}
