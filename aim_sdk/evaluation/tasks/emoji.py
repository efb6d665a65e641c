"""Emoji drawings that ship with pocket: a JSON file of drawings and label words, and one folder of images per style.

Queries have one style, demonstrations have others, so only what is drawn gives the answer away.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count, islice
from pathlib import Path
from typing import Literal

from pydantic import Field

from aim_sdk.evaluation.items import Dataset, Item
from aim_sdk.evaluation.tasks.config import TaskConfig
from aim_sdk.evaluation.tasks.files import Options, TaskFiles, TaskRecord

Group = Literal["category", "concept"]


class _EmojiOptions(Options):
    question: str
    query_style: str


class _BindingOptions(_EmojiOptions):
    group: Group


class _EmojiDrawing(TaskRecord):
    concept: str
    category: str
    style: str
    file: str


class _EmojiDrawings(TaskRecord):
    label_words: list[str] = Field(min_length=2)
    drawings: list[_EmojiDrawing]


def load(config: TaskConfig, folder: Path) -> Dataset:
    """Read ``drawings``; the answer is a drawing's category.

    Options: ``question``, and the ``query_style`` that is asked and never shown.
    """
    files = TaskFiles(config, folder)
    options = files.options(_EmojiOptions)
    return files.dataset(*_parts(files, files.read("drawings", _EmojiDrawings).drawings, options, "category"))


def load_binding(config: TaskConfig, folder: Path) -> Dataset:
    """Read ``drawings``; two groups get one label word each, and demonstrations show both in turn.

    A query's word, and that of the other group, are its own: they depend on its id alone. Where the group is a
    concept, the other one is of another category. A group with fewer drawings than its shots shows them again.

    Options: those of `load`, and ``group``: ``category`` or ``concept``.
    """
    files = TaskFiles(config, folder)
    options, content = files.options(_BindingOptions), files.read("drawings", _EmojiDrawings)
    queries, support = _parts(files, content.drawings, options, options.group)
    words = {query.id: random.Random(f"{config.name} {query.id}").sample(content.label_words, 2) for query in queries}
    groups = _groups(support, options.group)

    def draw(query: Item, shots: int, rng: random.Random) -> list[Item]:
        sides = [
            [replace(item, answers=(word,)) for item in rng.sample(shown, len(shown))]
            for word, shown in zip(words[query.id], _sides(query, groups, options.group, rng), strict=True)
        ]
        return list(islice(_in_turn(sides, rng), shots))

    return files.dataset([replace(query, answers=(words[query.id][0],)) for query in queries], support, draw)


def _parts(
    files: TaskFiles, drawings: Sequence[_EmojiDrawing], options: _EmojiOptions, answer: Group
) -> tuple[list[Item], list[Item]]:
    """Queries and support; the answer of each is its own category or concept."""
    queries: list[Item] = []
    support: list[Item] = []
    for drawing in drawings:
        metadata = drawing.model_dump(include={"concept", "category", "style"})
        path = files.image(files.folder, drawing.file)
        item = Item(drawing.file, path, options.question, (metadata[answer],), metadata=metadata)
        (queries if drawing.style == options.query_style else support).append(item)
    return queries, support


def _groups(items: Sequence[Item], group: Group) -> dict[str, list[Item]]:
    found: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        found[str(item.metadata[group])].append(item)
    return found


def _sides(query: Item, groups: Mapping[str, list[Item]], group: Group, rng: random.Random) -> list[list[Item]]:
    """Drawings of the query's group (of a category those of other concepts), and of another group."""
    own = groups[str(query.metadata[group])]
    if group == "category":
        own = [item for item in own if item.metadata["concept"] != query.metadata["concept"]]
    others = [found for found in groups.values() if found[0].metadata["category"] != query.metadata["category"]]
    return [own, rng.choice(others)]


def _in_turn(sides: Sequence[Sequence[Item]], rng: random.Random) -> Iterator[Item]:
    """Every two in a row show each side once, in random order."""
    for turn in count():
        for side in rng.sample(sides, len(sides)):
            yield side[turn % len(side)]
