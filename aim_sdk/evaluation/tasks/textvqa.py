"""TextVQA's files: ``TextVQA_0.5.1_train.json``, ``TextVQA_0.5.1_val.json``."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from aim_sdk.evaluation.items import Dataset, Item
from aim_sdk.evaluation.tasks.config import TaskConfig
from aim_sdk.evaluation.tasks.files import Id, TaskFiles, TaskRecord, Text


class _TextVqaEntry(TaskRecord):
    question_id: Id
    image_id: str
    question: str
    answers: list[Text] = Field(min_length=1)


class _TextVqaEntries(TaskRecord):
    data: list[_TextVqaEntry]


def load(config: TaskConfig, folder: Path) -> Dataset:
    """Read ``queries`` and ``support``; the images of both are in ``images``."""
    files = TaskFiles(config, folder)
    return files.dataset(_items(files, "queries"), _items(files, "support"))


def _items(files: TaskFiles, name: str) -> list[Item]:
    images = files.path("images")
    return [
        Item(entry.question_id, files.image(images, f"{entry.image_id}.jpg"), entry.question, tuple(entry.answers))
        for entry in files.read(name, _TextVqaEntries).data
    ]
