"""Sets of the tasks `emoji-names` and `emoji-labels`: demonstrations of two words, and a query for each of the words.

The task asks one of them; the other is the first of its queries that the other word is right for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from aim_sdk.evaluation.plan import draws
from aim_sdk.evaluation.protocol import get_protocol
from aim_sdk.evaluation.tasks import get_task, load
from aim_sdk.types import Demonstration, Query


@dataclass(frozen=True)
class PairQuery:
    """A query and its right answer."""

    query: Query
    answer: str


@dataclass(frozen=True)
class NamedPair:
    """Demonstrations, and two queries that each of their words is right for."""

    demonstrations: list[Demonstration]
    queries: tuple[PairQuery, PairQuery]


def pairs(task: str, *, shots: int, limit: int | None, seed: int) -> Iterator[NamedPair]:
    """Yield a pair for each query of a task, or a random part of them."""
    config = get_task(task)
    dataset, group = load(config, Path()), config.options["group"]
    support = {item.id: item for item in dataset.support}
    for one in draws(task, get_protocol("demo"), shots=shots, limit=limit, seed=seed):
        right = one.item.answers[0]
        name, shown = next((name, shown) for name, shown in one.shown if shown.answer != right)
        concepts = {support[name].metadata["concept"] for name, _ in one.shown} if group == "category" else set()
        other = next(
            query
            for query in dataset.queries
            if query.metadata[group] == support[name].metadata[group] and query.metadata["concept"] not in concepts
        )
        queries = PairQuery(one.query, right), PairQuery(Query(other.image, one.query.text), shown.answer)
        yield NamedPair(one.demonstrations, queries)
