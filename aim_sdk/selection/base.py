"""What a selector is: it scores the bank's demonstrations for each query, and the best ones are shown."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, TypeAlias

import numpy as np

from aim_sdk.bank.bank import DemonstrationBank
from aim_sdk.bank.store import Listed, Where, matches
from aim_sdk.errors import InputError, ShotsError, did_you_mean
from aim_sdk.selection.ranking import best
from aim_sdk.types import Matrix, Query

if TYPE_CHECKING:
    from numpy.typing import NDArray

Ranked: TypeAlias = tuple[str, float]
"""A demonstration's key and its score."""
Order: TypeAlias = "Callable[[NDArray[np.intp]], NDArray[np.intp]]"

_SCORES = 1 << 25
"""Scores that are held at once: more queries are chosen for in parts."""


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
        """Like [`select`][aim_sdk.selection.base.Selector.select], but the best first, and each key with its score."""
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


def others(bank: DemonstrationBank, query: Query, candidates: NDArray[np.intp]) -> NDArray[np.intp]:
    """Places among the candidates of those that are not the query's own."""
    return np.flatnonzero(np.isin(candidates, bank.own(query), invert=True))


def _fields(listed: Sequence[Listed]) -> set[str]:
    return {name for entry in listed for name in entry.metadata}
