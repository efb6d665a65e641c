"""What a selector is: it scores the bank's demonstrations for each query, and the best ones are shown."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Final, TypeAlias, TypeVar

import numpy as np

from aim_sdk.bank.collection import DemonstrationCollection
from aim_sdk.bank.entry import BankEntry
from aim_sdk.bank.store import Listed, Where, checked_where, matches
from aim_sdk.bank.view import BankView
from aim_sdk.errors import InputError, ShotsError, did_you_mean
from aim_sdk.selection.ranking import best
from aim_sdk.support.numbers import whole_number
from aim_sdk.types import Matrix, Query

if TYPE_CHECKING:
    from numpy.typing import NDArray

Ranked: TypeAlias = tuple[str, float]
"""A demonstration's key and its score."""
Order: TypeAlias = "Callable[[NDArray[np.intp]], NDArray[np.intp]]"

DEFAULT_SHOTS: Final = 8
"""Demonstrations that a query is shown if no number is given."""
T = TypeVar("T")

_SCORES = 1 << 25
"""Scores that are held at once: more queries are handled in parts."""


class Selector(ABC):
    """Scores the bank's demonstrations for each query; the best ones are shown. Threads may share one.

    Args:
        where: only demonstrations with that metadata are candidates: ``{field: value}`` or ``{field: [values]}``.
        balance: a metadata field; every value of it is shown as often as any other (up to one), the best of each.
    """

    name: ClassVar[str]
    where: Where = MappingProxyType({})
    balance: str | None = None

    def __init__(self, *, where: Where | None = None, balance: str | None = None) -> None:
        if balance is not None and not isinstance(balance, str):
            raise InputError(f"balance={balance!r}; expected the name of a metadata field, or None.")
        self.where, self.balance = MappingProxyType(dict(checked_where(where))), balance

    def __repr__(self) -> str:
        return f"{type(self).__name__}(where={dict(self.where)}, balance={self.balance!r})"

    @abstractmethod
    def scores(self, view: BankView, queries: Sequence[Query], candidates: NDArray[np.intp]) -> Matrix:
        """Return ``(queries, candidates)``. Higher scores are shown first; ties go to the earlier addition.

        ``candidates`` are places in ``view.entries`` and in the rows of ``view.features(...)``, in rising order, at
        least one. The query's own demonstrations may be among them; they are left out later. Many queries come in
        several calls, so a query's scores must not depend on the others. It must not change the bank: it would be asked
        again.
        """

    def select(self, view: BankView, queries: Sequence[Query], shots: int | None) -> list[list[str]]:
        """Choose the keys of each query's demonstrations, in the order of the prompt.

        Args:
            view: the bank as it is now (`DemonstrationBank.view`).
            queries: each is chosen for on its own.
            shots: how many; None takes up to `DEFAULT_SHOTS`, fewer if there are fewer candidates.

        Raises:
            ShotsError: a query has fewer candidates, or no demonstration matches ``where``.
            InputError: a candidate lacks the field to balance by.
        """
        return [[key for key, _ in found] for found in self._chosen(view, queries, shots, self.order)]

    def ranked(self, view: BankView, queries: Sequence[Query], shots: int | None) -> list[list[Ranked]]:
        """Like [`select`][aim_sdk.selection.base.Selector.select], but the best first, and each key with its score."""
        return self._chosen(view, queries, shots, lambda best: best)

    def order(self, best: NDArray[np.intp]) -> NDArray[np.intp]:
        """Put the chosen places, best first, in the order of the prompt: the best stands last."""
        return best[::-1]

    def _chosen(self, view: BankView, queries: Sequence[Query], shots: int | None, order: Order) -> list[list[Ranked]]:
        if not isinstance(view, BankView):
            raise InputError(f"{type(view).__name__} is not a view of a bank; pass bank.view().")
        if not isinstance(queries, Sequence) or isinstance(queries, str):
            raise InputError(f"queries: {type(queries).__name__}; expected a list of Query objects.")
        if shots is not None:
            shots = whole_number("shots", shots, 0)
        if shots == 0:
            return [[] for _ in queries]
        step = max(1, _SCORES // max(1, len(view)))
        parts = [queries[start : start + step] for start in range(0, len(queries), step)]
        return [found for part in parts for found in self._part(view, part, shots, order)]

    def _part(self, view: BankView, queries: Sequence[Query], shots: int | None, order: Order) -> list[list[Ranked]]:
        listed = view.entries
        candidates, labels = view.kept(
            ("candidates", repr((self.where, self.balance)), view.keys), lambda: self._candidates(view)
        )
        if not len(candidates):
            check_shots(shots or 0, 0)
            return [[] for _ in queries]
        chosen = []
        for query, row in zip(queries, self._checked_scores(view, queries, candidates), strict=True):
            allowed = others(view, query, candidates)
            self._check_shots(shots or 0, len(allowed), len(listed))
            count = min(DEFAULT_SHOTS, len(allowed)) if shots is None else shots
            places = allowed[order(best(row[allowed], count, None if labels is None else labels[allowed]))]
            keys = [listed[place].key for place in candidates[places].tolist()]
            chosen.append(list(zip(keys, row[places].tolist(), strict=True)))
        return chosen

    def _candidates(self, view: BankView) -> tuple[NDArray[np.intp], NDArray[np.intp] | None]:
        """Places of the candidates and the numbers of their labels."""
        listed = view.entries
        candidates = np.arange(len(listed))
        if self.where:
            candidates = np.array([n for n, e in enumerate(listed) if matches(e.metadata, self.where)], np.intp)
            if len(listed) and not len(candidates):
                near = "".join(did_you_mean(name, _fields(listed)) for name in self.where.keys() - _fields(listed))
                raise ShotsError(f"no demonstration of {len(listed)} matches where={dict(self.where)}.{near}")
        if view.keys is not None:
            candidates = np.array([n for n in candidates.tolist() if listed[n].key in view.keys], np.intp)
        labels = None if self.balance is None else self._labels(listed, candidates, self.balance)
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

    def _checked_scores(self, view: BankView, queries: Sequence[Query], candidates: NDArray[np.intp]) -> Matrix:
        scores = np.asarray(self.scores(view, queries, candidates))
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

    def _check_shots(self, shots: int, available: int, held: int) -> None:
        if available < shots <= held:
            raise ShotsError(
                f"{shots} shots asked for, but only {available} of the bank's {held} demonstrations may be shown: "
                f"{f'where={dict(self.where)}, and a' if self.where else 'a'} query's own are left out. "
                "Pass a smaller `shots`."
            )
        check_shots(shots, available)


def settled(bank: DemonstrationCollection, choose: Callable[[BankView], T]) -> T:
    """The result of ``choose`` on the bank, repeated if another thread or process removed a chosen demonstration.

    Raises:
        KeyError: ``choose`` asks for a demonstration that was never there.
    """
    while True:
        view = bank.view()
        try:
            return choose(view)
        except KeyError:
            if bank.view() is view:
                raise


def chosen(
    bank: DemonstrationCollection, selector: Selector, queries: Sequence[Query], shots: int | None
) -> list[list[BankEntry]]:
    """Each query's demonstrations, in the order of the prompt; see `Selector.select`."""

    def choose(view: BankView) -> list[list[BankEntry]]:
        found = selector.select(view, queries, shots)
        entries = {key: bank[key] for keys in found for key in keys}
        return [[entries[key] for key in keys] for keys in found]

    return settled(bank, choose)


def check_shots(shots: int, available: int) -> None:
    """Refuse more shots than there are demonstrations.

    Raises:
        ShotsError: naming both numbers.
    """
    if shots > available:
        raise ShotsError(
            f"{shots} shots asked for, but the bank holds {available} demonstrations to choose from. "
            "Add more with `pipe.bank.add([...])`, or pass a smaller `shots`."
        )


def others(view: BankView, query: Query, candidates: NDArray[np.intp]) -> NDArray[np.intp]:
    """Places among the candidates of those that are not the query's own."""
    return np.flatnonzero(np.isin(candidates, view.own(query), invert=True))


def _fields(listed: Sequence[Listed]) -> set[str]:
    return {name for entry in listed for name in entry.metadata}
