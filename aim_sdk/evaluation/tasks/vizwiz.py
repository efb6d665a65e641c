"""VizWiz VQA's files: ``Annotations/train.json``, ``Annotations/val.json``."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, RootModel

from aim_sdk.evaluation.items import Dataset, Item
from aim_sdk.evaluation.tasks.config import TaskConfig
from aim_sdk.evaluation.tasks.files import TaskFiles, TaskRecord, Text


class _VizWizAnswer(TaskRecord):
    answer: Text


class _VizWizEntry(TaskRecord):
    image: str
    question: str
    answers: list[_VizWizAnswer] = Field(min_length=1)


class _VizWizEntries(RootModel[list[_VizWizEntry]]):
    pass


def load(config: TaskConfig, folder: Path) -> Dataset:
    """Read ``query_annotations``, ``query_images`` and the same two of the support.

    A question has no id of its own: it is the only one about its image, and is identified by the image's name.
    """
    files = TaskFiles(config, folder)
    return files.dataset(_items(files, "query"), _items(files, "support"))


def _items(files: TaskFiles, part: str) -> list[Item]:
    images = files.path(f"{part}_images")
    return [
        Item(entry.image, files.image(images, entry.image), entry.question, tuple(a.answer for a in entry.answers))
        for entry in files.read(f"{part}_annotations", _VizWizEntries).root
    ]
