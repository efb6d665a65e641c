"""Which demonstrations stand before a query: drawn by its seed and id alone, or chosen by a selector."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from copy import copy
from types import MappingProxyType

import numpy as np

from aim_sdk.bank import DemonstrationBank
from aim_sdk.errors import InputError, ShotsError
from aim_sdk.evaluation.items import Dataset, Item
from aim_sdk.evaluation.protocol import Prompt, Protocol, shown_answer
from aim_sdk.selection import get_selector
from aim_sdk.types import Demonstration, Query

Shown = tuple[str, Demonstration]
"""A demonstration with its item's id."""


class Source:
    """Gives the demonstrations of one task's queries under one seed.

    ``random`` draws for every query by a hash of seed, task and query: what else is asked, in which order or by which
    process does not matter, and fewer shots are the first of more. A task with a way of its own keeps to it.
    """

    def __init__(
        self, task: str, dataset: Dataset, prompt: Prompt, protocol: Protocol, selector: str, seed: int
    ) -> None:
        self._task, self._dataset, self._prompt, self._seed = task, dataset, prompt, seed
        self._answer = protocol.answer
        if dataset.draw is not None and selector != "random":
            raise InputError(
                f"task {task!r} brings each query's demonstrations itself: --selector {selector} cannot choose them. "
                "Leave the option out."
            )
        self.selector = None if selector == "random" else copy(get_selector(selector))
        self.pool = self._pool(protocol.pool)

    def choose(self, queries: Sequence[Item], shots: int, bank: DemonstrationBank | None = None) -> list[list[Shown]]:
        """Return each query's demonstrations, in the order of the prompt.

        ``bank`` is needed where a selector chooses, and holds the pool.

        Raises:
            ShotsError: there are fewer.
        """
        if shots == 0:
            return [[] for _ in queries]
        if self.selector is not None:
            assert bank is not None
            return self._selected(queries, shots, bank)
        return [[self._shown(item) for item in self._drawn(query, shots)] for query in queries]

    def check(self, query: Item, shots: int) -> None:
        """See that a query can have so many demonstrations.

        Raises:
            ShotsError: it cannot.
        """
        if self.selector is None:
            self._drawn(query, shots)
        else:
            self._check(shots)

    def shown(self) -> list[Demonstration]:
        """The whole pool, as a selector finds it in the bank."""
        return [self._shown(item)[1] for item in self.pool]

    def query(self, item: Item) -> Query:
        """An item as it is asked."""
        return Query(item.image, self._prompt.text.format(text=item.text), id=f"{self._task}/query/{item.id}")

    def texts(self, queries: Sequence[Item], count: int) -> list[list[Shown]]:
        """The demonstrations whose texts stand before zero-shot queries, where the protocol wants some."""
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
        return self._dataset.draw(query, shots, random.Random(f"{self._seed} {self._task} {query.id}"))

    def _draw(self, query: Item, shots: int, purpose: str) -> list[Item]:
        self._check(shots)
        generator, places = self._generator(purpose, query.id), dict[int, None]()
        while len(places) < shots:  # not a permutation of the pool: it may hold 400,000, and there are many queries
            places[int(generator.integers(len(self.pool)))] = None
        return [self.pool[place] for place in places]

    def _generator(self, *names: str) -> np.random.Generator:
        name = "\n".join([str(self._seed), self._task, *names])
        return np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]))

    def _selected(self, queries: Sequence[Item], shots: int, bank: DemonstrationBank) -> list[list[Shown]]:
        assert self.selector is not None
        ids = [self._bank_id(item) for item in self.pool]
        self.selector.where = MappingProxyType({"id": frozenset(ids)})
        by_id: Mapping[str, Item] = dict(zip(ids, self.pool, strict=True))
        keys = self.selector.select(bank, [self.query(item) for item in queries], shots)
        named = {key: str(bank[key].demonstration.metadata["id"]) for found in keys for key in found}
        return [[self._shown(by_id[named[key]]) for key in found] for found in keys]

    def _shown(self, item: Item) -> Shown:
        answer = shown_answer(item.answers, self._answer)
        text = self._prompt.text.format(text=item.text)
        return item.id, Demonstration(item.image, text, answer, {"id": self._bank_id(item)})

    def _bank_id(self, item: Item) -> str:
        return f"{self._task}/{item.id}"
