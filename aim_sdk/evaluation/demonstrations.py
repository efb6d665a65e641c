"""Which demonstrations a query is shown: drawn by its seed and id alone, or chosen by a selector.

A query is never shown its own example: that of its id, where ids were given, or of its image and text.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from aim_sdk.backend.capabilities import WritesBoxes
from aim_sdk.bank import DemonstrationBank
from aim_sdk.errors import InputError, ShotsError
from aim_sdk.evaluation.boxes import shown_boxes
from aim_sdk.evaluation.items import Dataset, Item
from aim_sdk.evaluation.protocol import PromptSettings, Protocol, shown_answer
from aim_sdk.files.images import image_digest
from aim_sdk.selection.builtin import ReadingSelector
from aim_sdk.selection.registry import get_selector
from aim_sdk.types import Demonstration, Query

_SMALL = 4
"""A pool of up to this many times the shots counts as small."""

Shown = tuple[str, Demonstration]
"""A demonstration with its item's id."""
Neighbour = tuple[Shown, float]
"""A demonstration with its similarity to a query."""


class DemonstrationDraw:
    """Gives the demonstrations of one task's queries under one seed.

    ``random`` draws for every query by a hash of seed, task and query: what else is asked, in which order or by which
    process does not matter, and fewer shots are the first of more. A task with its own way of choosing keeps it.

    Args:
        task: its name.
        dataset: its queries, and what demonstrations are drawn from.
        prompt, protocol: how both are written.
        selector: a name.
        seed: of the draws.
        ready: the support is a bank's, already written as it is shown.
        boxes: how boxes are written, if the answers are boxes.
    """

    def __init__(
        self,
        task: str,
        dataset: Dataset,
        prompt: PromptSettings,
        protocol: Protocol,
        selector: str,
        seed: int,
        *,
        ready: bool = False,
        boxes: WritesBoxes | None = None,
    ) -> None:
        self._task, self._dataset, self._prompt, self._seed, self._ready = task, dataset, prompt, seed, ready
        self._answer, self._boxes = protocol.answer, boxes
        if dataset.draw is not None and selector != "random":
            raise InputError(
                f"task {task!r} brings each query's demonstrations itself: --selector {selector} cannot choose them. "
                "Leave the option out."
            )
        self.selector = None if selector == "random" else get_selector(selector)
        self.pool = self._pool(protocol.pool)
        self._by_key: dict[str, Item] = {}
        self._candidates = frozenset[str]()
        # The same images are drawn for many queries.
        self._digest: Callable[[Any], str] = lru_cache(maxsize=1 << 16)(image_digest)

    def keys(self) -> list[str]:
        """The keys of the pool, if it comes from a bank; otherwise none."""
        return [item.id for item in self.pool] if self._ready else []

    def in_bank(self, keys: Sequence[str]) -> None:
        """Record the keys that the pool's items have in the bank (`shown`), in order: selectors look there."""
        self._by_key = dict(zip(keys, self.pool, strict=True))
        self._candidates = frozenset(self._by_key)

    def choose(self, queries: Sequence[Item], shots: int, bank: DemonstrationBank | None = None) -> list[list[Shown]]:
        """Return each query's demonstrations, in the order of the prompt.

        ``bank`` holds the pool; it is needed if a selector chooses.

        Raises:
            ShotsError: there are fewer.
        """
        if shots == 0:
            return [[] for _ in queries]
        if self.selector is not None:
            assert bank is not None
            return self._selected(queries, shots, bank)
        return [[self._shown(item) for item in self._drawn(query, shots)] for query in queries]

    def check(self, queries: Sequence[Item], shots: int) -> None:
        """Check that queries can have this many demonstrations, as far as that is quick: in a small pool, all.

        Raises:
            ShotsError: they cannot.
        """
        self._check(shots)
        if self.selector is None:
            for query in queries if len(self.pool) <= _SMALL * shots else queries[:1]:
                self._drawn(query, shots)

    def shown(self, most: int | None = None) -> list[Demonstration]:
        """The whole pool, or its first ones, as it is to be in the bank before a selector or a vote looks there."""
        return [self._shown(item)[1] for item in self.pool[:most]]

    def query(self, item: Item) -> Query:
        """An item as it is asked."""
        name = self._bank_id(item) if item.named else f"{self._task}/query/{item.id}"
        return Query(item.image, self._prompt.text.format(text=item.text), id=name)

    def neighbours(self, queries: Sequence[Item], shots: int, bank: DemonstrationBank) -> list[list[Neighbour]]:
        """The demonstrations of the pool that are most like each query, the nearest first, each with its similarity.

        Raises:
            ShotsError: there are fewer.
        """
        view = bank.view().among(self._candidates)
        ranked = ReadingSelector().ranked(view, [self.query(item) for item in queries], shots)
        return [[(self._shown(self._by_key[key]), similarity) for key, similarity in found] for found in ranked]

    @property
    def draws_its_own(self) -> bool:
        """Whether each query of the task brings candidates of its own, so that the pool has no neighbours for it."""
        return self._dataset.draw is not None

    def texts(self, queries: Sequence[Item], count: int) -> list[list[Shown]]:
        """The demonstrations whose texts come before zero-shot queries, if the protocol wants some."""
        return [[self._shown(item) for item in self._draw(query, count, "zero-shot")] for query in queries]

    def _pool(self, size: int | None) -> Sequence[Item]:
        support = self._dataset.support
        if size is None or size >= len(support):
            return support
        places = sorted(self._generator("pool").choice(len(support), size, replace=False).tolist())
        return [support[place] for place in places]

    def _check(self, shots: int) -> None:
        if shots > len(self.pool):
            raise ShotsError(f"{shots} shots asked for, but task {self._task!r} has {len(self.pool)} demonstrations.")

    def _drawn(self, query: Item, shots: int) -> Sequence[Item]:
        if self._dataset.draw is None:
            return self._draw(query, shots, "draw")
        drawn = self._dataset.draw(query, shots, random.Random(f"{self._seed} {self._task} {query.id}"))
        for item in drawn:
            if self._is_own(query, item):
                raise InputError(
                    f"task {self._task!r}: demonstration {item.id!r} is query {query.id!r} itself (the same image and "
                    "text): it would be shown its own answer. Do the task's files come from the same split?"
                )
        return drawn

    def _draw(self, query: Item, shots: int, purpose: str) -> list[Item]:
        self._check(shots)
        generator, places = self._generator(purpose, query.id), dict[int, None]()
        own: set[int] = set()
        while len(places) < shots:  # not a permutation of the pool: it may hold 400,000, and there are many queries
            place = int(generator.integers(len(self.pool)))
            if place in places or place in own:
                continue
            if self._is_own(query, self.pool[place]):
                own.add(place)
                if shots > len(self.pool) - len(own):
                    raise ShotsError(
                        f"{shots} shots asked for, but of the {len(self.pool)} demonstrations of task {self._task!r} "
                        f"{len(own)} are query {query.id!r} itself, which is never shown to itself. Ask for fewer."
                    )
            else:
                places[place] = None
        return [self.pool[place] for place in places]

    def _is_own(self, query: Item, item: Item) -> bool:
        if query.named and self._name(item) == query.id:
            return True
        text = item.text if self._ready else self._prompt.text.format(text=item.text)
        if text != self._prompt.text.format(text=query.text):
            return False
        return self._digest(query.image) == self._digest(item.image)

    def _generator(self, *names: str) -> np.random.Generator:
        name = "\n".join([str(self._seed), self._task, *names])
        return np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]))

    def _selected(self, queries: Sequence[Item], shots: int, bank: DemonstrationBank) -> list[list[Shown]]:
        assert self.selector is not None
        keys = self.selector.select(bank.view().among(self._candidates), [self.query(item) for item in queries], shots)
        return [[self._shown(self._by_key[key]) for key in found] for found in keys]

    def _name(self, item: Item) -> str | None:
        """The id that a demonstration was given, if any."""
        if self._ready:
            return str(item.metadata["id"]) if "id" in item.metadata else None
        return item.id if item.named else None

    def _shown(self, item: Item) -> Shown:
        if self._ready:
            return item.id, Demonstration(item.image, item.text, item.answers[0], item.metadata)
        answer = shown_answer(item.answers, self._answer)
        if self._boxes is not None:
            answer = shown_boxes(answer, item.image, self._boxes)
        text = self._prompt.text.format(text=item.text)
        return item.id, Demonstration(item.image, text, answer, {"id": self._bank_id(item)})

    def _bank_id(self, item: Item) -> str:
        return item.id if self._ready else f"{self._task}/{item.id}"
