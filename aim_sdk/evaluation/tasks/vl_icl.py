"""VL-ICL Bench's image-to-text tasks: ``query.json``, ``support.json``, and how its code chooses demonstrations."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from pydantic import Field, RootModel

from aim_sdk.errors import InputError, ShotsError
from aim_sdk.evaluation.items import Dataset, Item
from aim_sdk.evaluation.tasks.config import TaskConfig
from aim_sdk.evaluation.tasks.files import Id, Options, Record, TaskFiles, Text
from aim_sdk.evaluation.tasks.pairs import SideBySide
from aim_sdk.types import ImageInput

_OPERATORS: Final = ("+", "-", "x")
"""The order of a support item's three answers."""


class _Entry(Record):
    id: Id | None = None
    image: str | list[str]
    question: str
    answer: Text


class _Entries(RootModel[list[_Entry]]):
    pass


class _Sum(Record):
    id: Id | None = None
    image: str | list[str]
    question: str
    answer: list[Text] = Field(min_length=len(_OPERATORS), max_length=len(_OPERATORS))


class _Sums(RootModel[list[_Sum]]):
    pass


class _SumQuery(_Entry):
    operator: str


class _SumQueries(RootModel[list[_SumQuery]]):
    pass


class _Pair(Record):
    same: _Entry
    diff: _Entry


class _Pairs(RootModel[list[_Pair]]):
    pass


class _Shown(Record):
    images: list[str] = Field(min_length=1)


class _Named(_Entry):
    classes: list[str]
    support: dict[str, _Shown]


class _NamedQueries(RootModel[list[_Named]]):
    pass


class _Question(Options):
    question: str


def load(config: TaskConfig, folder: Path) -> Dataset:
    """Read ``queries`` and ``support`` of a task whose demonstrations are any of the support's (CLEVR, TextOCR)."""
    files = TaskFiles(config, folder)
    queries, support = files.read("queries", _Entries).root, files.read("support", _Entries).root
    return files.dataset(_items(files, queries), _items(files, support))


def load_operators(config: TaskConfig, folder: Path) -> Dataset:
    """Read ``queries`` and ``support`` of operator induction: a demonstration's answer is that of the query's operator.

    Raises:
        InputError: beside what damage raises, an operator that is none of +, -, x.
    """
    files = TaskFiles(config, folder)
    asked = files.read("queries", _SumQueries).root
    sums = files.read("support", _Sums).root
    queries = _items(files, asked)
    support = [
        Item(name, _image(files, entry.image), entry.question, tuple(entry.answer))
        for name, entry in zip(_ids(sums), sums, strict=True)
    ]
    places = {item.id: _operator(files, entry) for item, entry in zip(queries, asked, strict=True)}

    def draw(query: Item, shots: int, rng: random.Random) -> list[Item]:
        place = places[query.id]
        return [replace(item, answers=(item.answers[place],)) for item in _some(support, shots, rng, config)]

    return files.dataset(queries, support, draw)


def load_pairs(config: TaskConfig, folder: Path) -> Dataset:
    """Read ``queries`` and ``support`` of matching: a shot is two demonstrations, of images that match and that do not."""
    files = TaskFiles(config, folder)
    queries = _items(files, files.read("queries", _Entries).root)
    pairs = files.read("support", _Pairs).root
    shots_of = [
        tuple(
            Item(f"{place}-{name}", _image(files, entry.image), entry.question, (entry.answer,))
            for name, entry in (("same", pair.same), ("diff", pair.diff))
        )
        for place, pair in enumerate(pairs)
    ]

    def draw(query: Item, shots: int, rng: random.Random) -> list[Item]:
        return [item for pair in _some(shots_of, shots, rng, config) for item in pair]

    return files.dataset(queries, [item for pair in shots_of for item in pair], draw)


def load_classes(config: TaskConfig, folder: Path) -> Dataset:
    """Read ``queries`` of open-ended MiniImageNet, which hold their support: names of classes, and images of each.

    A shot is two demonstrations, of the query's class and of one other, in one order for all shots of a query.

    Option: ``question``, what stands beside a demonstration's image.

    Raises:
        InputError: beside what damage raises, a query's class has no images, or there is no other class.
    """
    files = TaskFiles(config, folder)
    question = files.options(_Question).question
    entries = files.read("queries", _NamedQueries).root
    queries = _items(files, entries)
    named = {
        item.id: {name: _named(files, question, name, shown) for name, shown in entry.support.items()}
        for item, entry in zip(queries, entries, strict=True)
    }
    for query, entry in zip(queries, entries, strict=True):
        if entry.answer not in named[query.id] or not set(entry.classes) - {entry.answer} <= set(named[query.id]):
            raise InputError(
                f"task {config.name!r}: {files.path('queries')}: query {query.id} has classes without images."
            )

    others = {
        query.id: [name for name in entry.classes if name != entry.answer]
        for query, entry in zip(queries, entries, strict=True)
    }

    def draw(query: Item, shots: int, rng: random.Random) -> list[Item]:
        sides = [query.answers[0], rng.choice(others[query.id])]
        rng.shuffle(sides)
        images = [named[query.id][name] for name in sides]
        fewest = min(map(len, images))
        if shots > fewest:
            raise ShotsError(_too_many(config, shots, f"{fewest} images of a class"))
        return [side[shot] for shot in range(shots) for side in images]

    support = {item.id: item for classes in named.values() for items in classes.values() for item in items}
    return files.dataset(queries, list(support.values()), draw)


def _items(files: TaskFiles, entries: Sequence[_Entry]) -> list[Item]:
    return [
        Item(name, _image(files, entry.image), entry.question, (entry.answer,))
        for name, entry in zip(_ids(entries), entries, strict=True)
    ]


def _named(files: TaskFiles, question: str, name: str, shown: _Shown) -> list[Item]:
    return [Item(f"{name}/{image}", _image(files, image), question, (name,)) for image in shown.images]


def _ids(entries: Sequence[_Entry | _Sum]) -> list[str]:
    """The file's own ids where each has one; else the places, which are unique."""
    ids = [entry.id for entry in entries if entry.id is not None]
    return ids if len(set(ids)) == len(entries) else [str(place) for place in range(len(entries))]


def _image(files: TaskFiles, image: str | list[str]) -> ImageInput:
    """Images are named from the benchmark's folder on."""
    paths = [files.image(files.folder, name) for name in ([image] if isinstance(image, str) else image)]
    if len(paths) == 1:
        return paths[0]
    if len(paths) == 2:
        return SideBySide(*paths)
    raise InputError(f"task {files.config.name!r}: {len(paths)} images in one entry ({image}); expected one or two.")


def _operator(files: TaskFiles, entry: _SumQuery) -> int:
    if entry.operator not in _OPERATORS:
        raise InputError(
            f"task {files.config.name!r}: {files.path('queries')}: operator {entry.operator!r}; "
            f"expected one of: {', '.join(_OPERATORS)}."
        )
    return _OPERATORS.index(entry.operator)


def _some(items: Sequence[Any], count: int, rng: random.Random, config: TaskConfig) -> Sequence[Any]:
    """Any of them without repetition; fewer are the first of more."""
    if count > len(items):
        raise ShotsError(_too_many(config, count, f"{len(items)} to draw from"))
    return rng.sample(items, len(items))[:count]


def _too_many(config: TaskConfig, shots: int, there: str) -> str:
    return f"{shots} shots asked for, but task {config.name!r} has {there}; ask for fewer, as in --shots 0,1,2,4,5."
