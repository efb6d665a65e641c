"""What a table of selectors is asked on: pools of demonstrations, and queries that are shown some of them.

A trial of pocket (`benchmarks.pocket.trials`) is a pool of 16 demonstrations with one query. So is a query of a task of
the suite that draws each query's demonstrations; the others have one pool per seed for all queries.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from aim_sdk.evaluation.items import Dataset, Item
from aim_sdk.evaluation.tasks.registry import get_task, load
from aim_sdk.types import Demonstration, ImageInput, Query

_END = "\n"
"""Ends a choice, as an answer ends in pocket's prompt."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A query with its choices."""

    name: str
    query: Query
    choices: tuple[str, ...]
    right: int
    """The place of the right choice."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Demonstrations, and the queries that are shown some of them."""

    task: str
    name: str
    demonstrations: tuple[Demonstration, ...]
    """No image is there twice with the same text. Each has its answer as the metadata field ``label`` and its place in
    the pool as ``place``."""
    asked: tuple[Asked, ...]
    wrong: frozenset[int] = frozenset()
    """Places of demonstrations whose answers were changed."""


def pools(task: str, *, data: Path, numbers: range, seeds: Sequence[int], size: int) -> Iterator[Pool]:
    """Yield the pools of a task.

    Args:
        task: a name of the suite, or the YAML file of one; a folder that `benchmarks.pocket.trials` wrote.
        data: the folder of the suite's files.
        numbers: which queries: of a trial's seed, or in the order of a draw of the seed.
        seeds: of the trials or of the draws.
        size: demonstrations of a pool; a trial has its own.
    """
    folder = Path(task)
    config = get_task(folder / "task.yaml" if folder.is_dir() else task)
    dataset, name = load(config, data), config.name.removeprefix("pocket-")
    if any(item.demonstrations for item in dataset.queries):
        yield from _trials(name, dataset, numbers, seeds)
        return
    for seed in seeds:
        rng = random.Random(f"{name}:{seed}")
        order = rng.sample(dataset.queries, len(dataset.queries))
        chosen = order[numbers.start : numbers.stop]
        if dataset.draw is None:
            support = rng.sample(dataset.support, min(size, len(dataset.support)))
            choices = tuple(dict.fromkeys(item.answers[0] for item in dataset.support))
            yield _pool(name, str(seed), support, chosen, choices)
            continue
        for item in chosen:
            drawn = dataset.draw(item, size, random.Random(f"{name}:{seed}:{item.id}"))
            yield _pool(name, f"{seed}-{item.id}", drawn, [item])


def _trials(name: str, dataset: Dataset, numbers: range, seeds: Sequence[int]) -> Iterator[Pool]:
    by_id = {item.id: item for item in dataset.support}
    wanted = {f"{seed}-{number}" for seed in seeds for number in numbers}
    for item in dataset.queries:
        if item.id in wanted:
            yield _pool(name, item.id, [by_id[one] for one in item.demonstrations], [item])


def _pool(
    task: str, name: str, shown: Sequence[Item], asked: Sequence[Item], choices: Sequence[str] | None = None
) -> Pool:
    unique: dict[tuple[ImageInput, str], Item] = {}
    for item in shown:
        unique.setdefault((item.image, item.text), item)
    demonstrations = [Demonstration(item.image, item.text, item.answers[0].strip()) for item in unique.values()]
    of_pool = choices or tuple(dict.fromkeys(item.answer for item in demonstrations))
    return Pool(task, name, _labelled(demonstrations), tuple(_asked(item, of_pool) for item in asked))


def _asked(item: Item, choices: Sequence[str]) -> Asked:
    """Its own choices, or those of the task."""
    every = item.choices or tuple(choices)
    right = item.answers[0] if item.answers[0] in every else item.answers[0].strip()
    return Asked(item.id, Query(item.image, item.text), tuple(one.strip() + _END for one in every), every.index(right))


def _labelled(demonstrations: Sequence[Demonstration]) -> tuple[Demonstration, ...]:
    return tuple(
        replace(item, metadata={"label": item.answer, "place": place}) for place, item in enumerate(demonstrations)
    )


def noisy(pool: Pool, share: float) -> Pool:
    """Change a share of the answers, each to another answer of the pool.

    The same pool and share give the same changes.
    """
    rng = random.Random(f"{pool.task}:{pool.name}:{share}")
    answers = list(dict.fromkeys(item.answer for item in pool.demonstrations))
    wrong = frozenset(rng.sample(range(len(pool.demonstrations)), round(share * len(pool.demonstrations))))
    if len(answers) < 2 or not wrong:
        return pool
    changed = [
        replace(item, answer=rng.choice([other for other in answers if other != item.answer]))
        if place in wrong
        else item
        for place, item in enumerate(pool.demonstrations)
    ]
    return replace(pool, demonstrations=_labelled(changed), wrong=wrong)
