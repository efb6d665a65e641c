"""VL-ICL Bench's image-to-text tasks: ``query.json``, ``support.json``, and how its code chooses demonstrations."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final, Literal, Self, TypeVar

from pydantic import BeforeValidator, Field, RootModel, model_validator

from aim_sdk.errors import ShotsError
from aim_sdk.evaluation.items import Dataset, Item
from aim_sdk.evaluation.tasks.config import TaskConfig
from aim_sdk.evaluation.tasks.files import Id, Options, TaskFiles, TaskRecord, Text
from aim_sdk.evaluation.tasks.pairs import SideBySide
from aim_sdk.types import ImageInput

_T = TypeVar("_T")

_OPERATORS: Final = ("+", "-", "x")
"""The order of a support item's three answers."""

_Images = Annotated[
    list[str],
    BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
    Field(min_length=1, max_length=2),
]
"""Named from the benchmark's folder on."""


class _VlIclShown(TaskRecord):
    id: Id | None = None
    image: _Images
    question: str


class _VlIclEntry(_VlIclShown):
    answer: Text


class _VlIclEntries(RootModel[list[_VlIclEntry]]):
    pass


class _Sum(_VlIclShown):
    answer: list[Text] = Field(min_length=len(_OPERATORS), max_length=len(_OPERATORS))


class _Sums(RootModel[list[_Sum]]):
    pass


class _SumQuery(_VlIclEntry):
    operator: Literal["+", "-", "x"]


class _SumQueries(RootModel[list[_SumQuery]]):
    pass


class _TwoImages(TaskRecord):
    same: _VlIclEntry
    diff: _VlIclEntry


class _Pairs(RootModel[list[_TwoImages]]):
    pass


class _Class(TaskRecord):
    images: list[str] = Field(min_length=1)


class _ClassQuery(_VlIclEntry):
    classes: list[str]
    support: dict[str, _Class]

    @property
    def others(self) -> list[str]:
        """The classes that it does not belong to."""
        return [name for name in self.classes if name != self.answer]

    @model_validator(mode="after")
    def _has_images(self) -> Self:
        if not self.others:
            raise ValueError(f"there is no class other than its own: {self.answer}")
        if absent := {self.answer, *self.others} - set(self.support):
            raise ValueError(f"`support` has no images of class {', '.join(sorted(absent))}")
        return self


class _ClassQueries(RootModel[list[_ClassQuery]]):
    pass


class _VlIclQuestion(Options):
    question: str


def load(config: TaskConfig, folder: Path) -> Dataset:
    """Read ``queries`` and ``support`` of a task whose demonstrations are any of the support's (CLEVR, TextOCR)."""
    files = TaskFiles(config, folder)
    queries, support = files.read("queries", _VlIclEntries).root, files.read("support", _VlIclEntries).root
    return files.dataset(_items(files, queries), _items(files, support))


def load_operators(config: TaskConfig, folder: Path) -> Dataset:
    """Read ``queries`` and ``support`` of operator induction.

    A demonstration's answer is what the query's operator gives.
    """
    files = TaskFiles(config, folder)
    asked, sums = files.read("queries", _SumQueries).root, files.read("support", _Sums).root
    queries = _items(files, asked)
    support = [_item(files, name, entry, *entry.answer) for name, entry in zip(_ids(sums), sums, strict=True)]
    places = {item.id: _OPERATORS.index(entry.operator) for item, entry in zip(queries, asked, strict=True)}

    def draw(query: Item, shots: int, rng: random.Random) -> list[Item]:
        place = places[query.id]
        return [replace(item, answers=(item.answers[place],)) for item in _some(support, shots, rng, config)]

    return files.dataset(queries, support, draw)


def load_pairs(config: TaskConfig, folder: Path) -> Dataset:
    """Read ``queries`` and ``support`` of matching.

    A shot is two demonstrations, of images that match and then of images that do not.
    """
    files = TaskFiles(config, folder)
    queries = _items(files, files.read("queries", _VlIclEntries).root)
    pairs = [
        (
            _item(files, f"{place}-same", pair.same, pair.same.answer),
            _item(files, f"{place}-diff", pair.diff, pair.diff.answer),
        )
        for place, pair in enumerate(files.read("support", _Pairs).root)
    ]

    def draw(query: Item, shots: int, rng: random.Random) -> list[Item]:
        return [item for pair in _some(pairs, shots, rng, config) for item in pair]

    return files.dataset(queries, [item for pair in pairs for item in pair], draw)


def load_classes(config: TaskConfig, folder: Path) -> Dataset:
    """Read ``queries`` of open-ended MiniImageNet, which hold their support: names of classes, and images of each.

    A shot is two demonstrations, of the query's class and of one other, in one order for all shots of a query.

    Option: ``question``, the text next to a demonstration's image.
    """
    files = TaskFiles(config, folder)
    question = files.options(_VlIclQuestion).question
    asked = files.read("queries", _ClassQueries).root
    queries = _items(files, asked)
    entries = {item.id: entry for item, entry in zip(queries, asked, strict=True)}

    def shown(name: str, entry: _ClassQuery) -> list[Item]:
        images = entry.support[name].images
        return [Item(f"{name}/{image}", files.image(folder, image), question, (name,)) for image in images]

    def draw(query: Item, shots: int, rng: random.Random) -> list[Item]:
        entry = entries[query.id]
        names = [entry.answer, rng.choice(entry.others)]
        rng.shuffle(names)
        sides = [shown(name, entry) for name in names]
        if shots > (fewest := min(map(len, sides))):
            raise _too_many(config, shots, f"{fewest} images per class")
        return [side[shot] for shot in range(shots) for side in sides]

    support = {item.id: item for entry in asked for name in entry.support for item in shown(name, entry)}
    return files.dataset(queries, list(support.values()), draw)


def _items(files: TaskFiles, entries: Sequence[_VlIclEntry]) -> list[Item]:
    return [_item(files, name, entry, entry.answer) for name, entry in zip(_ids(entries), entries, strict=True)]


def _item(files: TaskFiles, name: str, entry: _VlIclShown, *answers: str) -> Item:
    paths = [files.image(files.folder, image) for image in entry.image]
    image: ImageInput = paths[0] if len(paths) == 1 else SideBySide(*paths)
    return Item(name, image, entry.question, answers)


def _ids(entries: Sequence[_VlIclShown]) -> list[str]:
    """The file's own ids if each item has one; otherwise the positions, which are unique."""
    ids = [entry.id for entry in entries if entry.id is not None]
    return ids if len(set(ids)) == len(entries) else [str(place) for place in range(len(entries))]


def _some(items: Sequence[_T], count: int, rng: random.Random, config: TaskConfig) -> Sequence[_T]:
    """A random sample without repetition; a smaller sample is the beginning of a larger one."""
    if count > len(items):
        raise _too_many(config, count, f"{len(items)} to draw from")
    return rng.sample(items, len(items))[:count]


def _too_many(config: TaskConfig, shots: int, there: str) -> ShotsError:
    return ShotsError(f"{shots} shots asked for, but task {config.name!r} has {there}. Ask for fewer with `--shots`.")
