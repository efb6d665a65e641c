"""The most similar demonstrations whose answers their own neighbours agree with, for banks with wrong answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from aim_sdk.bank.adding import POOLED
from aim_sdk.bank.view import BankView
from aim_sdk.errors import InputError
from aim_sdk.selection.base import others
from aim_sdk.selection.builtin import ReadingSelector, cosines
from aim_sdk.selection.nearest import vote
from aim_sdk.selection.ranking import best
from aim_sdk.types import Matrix, Query

if TYPE_CHECKING:
    from numpy.typing import NDArray

JUDGED: Final = 64
"""The most similar demonstrations of a query that are judged."""
VOTERS: Final = 8
"""The nearest neighbours of a demonstration that judge it."""
_CONTRADICTED: Final = 3
"""What is taken off a cosine (-1 to 1), so that it comes after all others."""
_SCORES: Final = 1 << 24
"""Similarities that are held at once."""


class AgreedSelector(ReadingSelector):
    """The most similar readings, without those whose answer their own neighbours contradict.

    Demonstration *i* is judged by its 8 nearest neighbours *j* among the candidates, itself left out. Their answers
    vote as in [`vote`][aim_sdk.selection.nearest.vote], each with weight ``exp(cosine(i, j) / 0.1)``; *i* is
    contradicted if another answer has a larger share than its own. This is Wilson's editing (1972, "Asymptotic
    properties of nearest neighbor rules using edited data") with weighted votes: where fewer than half of the answers
    around a demonstration are wrong, the vote is right, and wrong answers are no longer shown.

    The 64 demonstrations most similar to the query are judged; the contradicted ones come after all others. An answer
    that only one candidate has cannot be agreed with, and is not contradicted. A query's own demonstrations do not
    vote, nor do those that ``where`` excludes: no answer that is to be predicted chooses what is shown.

    It learns from the bank's vectors and answers alone. A demonstration's neighbours are looked up when it is first
    near a query, which takes as long as one selection by `reading`, and are kept until the bank changes.

    Raises:
        InputError: from ``select``: the candidates' answers are not a closed set, each given twice on average.
    """

    name = "agreed"

    def scores(self, view: BankView, queries: Sequence[Query], candidates: NDArray[np.intp]) -> Matrix:
        scores = super().scores(view, queries, candidates)
        neighbourhood = view.kept(
            ("neighbourhood", repr(self.where), view.keys), lambda: _Neighbourhood(view, candidates)
        )
        for query, row in zip(queries, scores, strict=True):
            allowed = others(view, query, candidates)
            near = allowed[best(row[allowed], JUDGED)]
            own = frozenset(np.flatnonzero(np.isin(candidates, view.own(query))).tolist())
            row[near[neighbourhood.contradicted(near, own)]] -= _CONTRADICTED
        return scores


class _Neighbourhood:
    """The neighbours of candidates, looked up when they are needed. Places are places among the candidates."""

    def __init__(self, view: BankView, candidates: NDArray[np.intp]) -> None:
        self._view, self._candidates = view, candidates
        self._answers = [view.demonstration(view.entries[n].key).answer.strip() for n in candidates.tolist()]
        self._counts = Counter(self._answers)
        self._nearest: dict[int, list[tuple[int, float]]] = {}
        if 2 * len(self._counts) > len(self._answers):
            some = ", ".join(repr(answer[:40]) for answer in list(self._counts)[:3])
            raise InputError(
                f"selector 'agreed': {len(self._answers)} demonstrations have {len(self._counts)} distinct answers "
                f"({some}, ...); expected a closed set, each given twice on average, so that neighbours can agree.\n"
                "Next: selector='reading' (--selector reading), which does not look at answers."
            )

    def contradicted(self, places: NDArray[np.intp], own: frozenset[int]) -> NDArray[np.bool_]:
        """Whether the neighbours of each place, without ``own``, have another answer; ``(places,)``."""
        self._look_up([place for place in places.tolist() if place not in self._nearest])
        without = Counter(self._answers[place] for place in own)
        return np.array([self._is_contradicted(place, own, without) for place in places.tolist()], np.bool_)

    def _is_contradicted(self, place: int, own: frozenset[int], without: Counter[str]) -> bool:
        answer = self._answers[place]
        if self._counts[answer] - without[answer] < 2:
            return False
        voters = [one for one in self._nearest[place] if one[0] not in own][:VOTERS]
        shares = vote([similarity for _, similarity in voters], [self._answers[neighbour] for neighbour, _ in voters])
        return shares.get(answer, 0.0) < max(shares.values(), default=0.0)

    def _look_up(self, places: Sequence[int]) -> None:
        """Twice as many neighbours as vote: some may be a query's own."""
        vectors = self._view.features(POOLED)
        mean, norms = self._view.centred(POOLED)
        step = max(1, _SCORES // len(self._candidates))
        for start in range(0, len(places), step):
            part = np.array(places[start : start + step], np.intp)
            rows = self._candidates[part]
            similarities = cosines(self._view, (vectors[rows] - mean) / norms[rows, None], self._candidates)
            similarities[np.arange(len(part)), part] = -np.inf
            for place, row in zip(part.tolist(), similarities, strict=True):
                near = best(row, min(2 * VOTERS, len(row) - 1))
                self._nearest[place] = list(zip(near.tolist(), row[near].tolist(), strict=True))
