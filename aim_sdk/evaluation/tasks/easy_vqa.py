"""easy-VQA's files: ``questions.json``, a list of question, answer and image number, and a folder of images."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Final, Literal

from pydantic import Field, RootModel

from aim_sdk.evaluation.items import Dataset, Item
from aim_sdk.evaluation.tasks.config import TaskConfig
from aim_sdk.evaluation.tasks.files import Options, TaskFiles

_KINDS: Final = dict.fromkeys(("yes", "no"), "yes/no") | dict.fromkeys(("circle", "rectangle", "triangle"), "shape")


class _ImageOptions(Options):
    question: str
    fields: tuple[Literal["shape", "colour"], ...] = Field(min_length=1)


class _EasyVqaEntries(RootModel[list[tuple[str, str, int]]]):
    pass


def load(config: TaskConfig, folder: Path) -> Dataset:
    """Read ``query_questions``, ``query_images`` and the same two of the support.

    A question is identified by its position in the file; its kind (``yes/no``, ``shape``, ``colour``) is in the
    metadata.
    """
    files = TaskFiles(config, folder)
    return files.dataset(_items(files, "query"), _items(files, "support"))


def _items(files: TaskFiles, part: str) -> list[Item]:
    images = files.path(f"{part}_images")
    return [
        Item(
            str(place),
            files.image(images, f"{image}.png"),
            question,
            (answer,),
            metadata={"kind": _KINDS.get(answer, "colour"), "image": image},
        )
        for place, (question, answer, image) in enumerate(files.read(f"{part}_questions", _EasyVqaEntries).root)
    ]


def load_images(config: TaskConfig, folder: Path) -> Dataset:
    """Read the same files; one item per image, whose answer says what is in it, as its questions' answers do.

    Options: the ``question``, and the ``fields`` of the answer: one of ``shape`` and ``colour`` is answered in a word,
    both are answered as JSON. An image whose questions do not tell all of them is left out.
    """
    files = TaskFiles(config, folder)
    options = files.options(_ImageOptions)
    return files.dataset(_images(files, "query", options), _images(files, "support", options))


def image_numbers(files: TaskFiles, part: str) -> list[int]:
    """The numbers of the images that a part's questions are about, in order."""
    return sorted({image for _, _, image in files.read(f"{part}_questions", _EasyVqaEntries).root})


def _images(files: TaskFiles, part: str, options: _ImageOptions) -> list[Item]:
    told: dict[int, dict[str, str]] = defaultdict(dict)
    for _, answer, image in files.read(f"{part}_questions", _EasyVqaEntries).root:
        told[image][_KINDS.get(answer, "colour")] = answer
    folder = files.path(f"{part}_images")
    return [
        Item(
            str(image),
            files.image(folder, f"{image}.png"),
            options.question,
            (_answer({name: known[name] for name in options.fields}),),
        )
        for image, known in sorted(told.items())
        if known.keys() >= set(options.fields)
    ]


def _answer(fields: dict[str, str]) -> str:
    return json.dumps(fields) if len(fields) > 1 else next(iter(fields.values()))
