"""Asks items in one setting after the other; an item that is refused loses only itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from aim_sdk.assessment.candidates import Candidate
from aim_sdk.assessment.items import Item
from aim_sdk.bank import BankEntry
from aim_sdk.errors import InputError
from aim_sdk.injection.choices import listed, normalized, softmax
from aim_sdk.injection.contexts import Contexts
from aim_sdk.injection.few_shot import FewShotModel
from aim_sdk.injection.shots import Shots
from aim_sdk.selection.base import Ranked, Selector
from aim_sdk.selection.nearest import vote
from aim_sdk.selection.registry import get_selector
from aim_sdk.types import ChoiceScores, Demonstration, Query


@dataclass(frozen=True, slots=True)
class Outcome:
    """One item's answer in one setting."""

    answer: str | None
    """None: it could not be answered."""
    probabilities: tuple[float, ...] | None = None
    """Of each choice, if the answers are a closed set."""
    refused: str | None = None
    """Why it could not be answered."""


class Asker:
    """Asks one pipeline's items. Each item is ranked against the bank once per selector, whatever is asked.

    Args:
        model: the pipeline.
        items: what is asked.
        choices: the closed set of answers; None: the model answers freely.
        most_shots: demonstrations of an item, at most.
        max_new_tokens: of a free answer.
    """

    def __init__(
        self,
        model: FewShotModel,
        items: Sequence[Item],
        choices: Sequence[str] | None,
        *,
        most_shots: int,
        max_new_tokens: int,
    ) -> None:
        self._model, self._items, self._choices = model, items, choices
        self._most, self._max_new_tokens = most_shots, max_new_tokens
        self._places = {item.name: place for place, item in enumerate(items)}
        self._rankings: dict[str, list[list[Ranked]]] = {}
        self._selectors: dict[str, Selector] = {}
        self._entries: dict[str, BankEntry] = {}
        self._contexts = Contexts(model.encoder, model.bank, model.selector, labels=choices is not None)

    def ask(self, candidate: Candidate, items: Sequence[Item], *, without: Sequence[str | None] = ()) -> list[Outcome]:
        """Answer items in one setting.

        Args:
            candidate: the setting.
            items: some of those that were given to the class.
            without: for each item the key of a demonstration that is taken out of the bank for it; the next one in the
                ranking is shown in its place.
        """
        taken = without or [None] * len(items)
        shown = [self.shown(candidate, item, key) for item, key in zip(items, taken, strict=True)]
        return self._each(candidate, items, shown)

    def shown(self, candidate: Candidate, item: Item, without: str | None = None) -> list[Ranked]:
        """What an item is shown, in the order of the prompt, each key with its score."""
        if candidate.selector is None:
            return []
        ranked = self._ranking(candidate.selector)[self._places[item.name]]
        best = [one for one in ranked if one[0] != without][: candidate.shots]
        places = np.array([self._order[key] for key, _ in best], np.intp)
        by_place = dict(zip(places.tolist(), best, strict=True))
        return [by_place[place] for place in self._selector(candidate.selector).order(places).tolist()]

    def _each(self, candidate: Candidate, items: Sequence[Item], shown: Sequence[Sequence[Ranked]]) -> list[Outcome]:
        if not items:
            return []
        try:
            return self._answered(candidate, items, shown)
        except InputError as error:
            if len(items) == 1:
                return [Outcome(None, refused=str(error))]
            return [one for i in range(len(items)) for one in self._each(candidate, items[i : i + 1], shown[i : i + 1])]

    def _answered(
        self, candidate: Candidate, items: Sequence[Item], shown: Sequence[Sequence[Ranked]]
    ) -> list[Outcome]:
        if candidate.mode == "nearest":
            return [self._voted(near) for near in shown]
        queries = [item.query for item in items]
        given = [[self._entry(key) for key, _ in ranked] for ranked in shown]
        shots = Shots(mode=candidate.mode, demonstrations=given)
        if self._choices is None:
            made = self._model.generate(
                queries, shots=shots, max_new_tokens=self._max_new_tokens, batch_size=len(queries)
            )
            return [Outcome(one.text.strip()) for one in made]
        return [self._chosen(scores) for scores in self._scored(queries, shots, self._choices)]

    def _scored(self, queries: Sequence[Query], shots: Shots, choices: Sequence[str]) -> list[ChoiceScores]:
        contexts = [context for context, _ in self._contexts.of(queries, shots)]
        return self._model.backend.injector.score_batch(
            queries, contexts, choices, prompt_format=self._model.prompt_format
        )

    def _chosen(self, scores: ChoiceScores) -> Outcome:
        assert self._choices is not None
        probabilities = softmax(normalized(scores, self._choices, "tokens"))
        return Outcome(self._choices[probabilities.index(max(probabilities))], tuple(probabilities))

    def _voted(self, near: Sequence[Ranked]) -> Outcome:
        answers = [self._demonstration(key).answer.strip() for key, _ in near]
        shares = vote([similarity for _, similarity in near], answers)
        if self._choices is None:
            return Outcome(next(iter(shares)))
        probabilities = tuple(shares.get(choice.strip(), 0.0) for choice in self._choices)
        if not sum(probabilities):
            return Outcome(None, refused=f"the nearest say no choice, but {listed(list(shares))}")
        return Outcome(self._choices[probabilities.index(max(probabilities))], probabilities)

    def _ranking(self, selector: str) -> list[list[Ranked]]:
        """Each item's demonstrations, best first: one more than are shown, because one may be taken out."""
        if selector not in self._rankings:
            view = self._model.bank.view()
            available = min(len(view) - len(set(view.own(item.query))) for item in self._items)
            count = min(self._most + 1, available)
            queries = [item.query for item in self._items]
            self._rankings[selector] = self._selector(selector).ranked(view, queries, count)
        return self._rankings[selector]

    def _selector(self, name: str) -> Selector:
        return self._selectors.setdefault(name, get_selector(name))

    @cached_property
    def _order(self) -> dict[str, int]:
        """Each demonstration's place in the bank."""
        return {key: place for place, key in enumerate(self._model.bank)}

    def _entry(self, key: str) -> BankEntry:
        if key not in self._entries:
            self._entries[key] = self._model.bank[key]
        return self._entries[key]

    def _demonstration(self, key: str) -> Demonstration:
        return self._entry(key).demonstration


def most_shots(model: FewShotModel, items: Sequence[Item]) -> int:
    """How many demonstrations every item can be shown: its own are left out."""
    view = model.bank.view()
    return min((len(view) - len(set(view.own(item.query))) for item in items), default=0)
