"""Hateful Memes' files: ``train.jsonl``, ``dev_seen.jsonl``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from aim_sdk.evaluation.items import Dataset, Item
from aim_sdk.evaluation.tasks.config import TaskConfig
from aim_sdk.evaluation.tasks.files import Id, TaskFiles, TaskRecord

CHOICES = ("yes", "no")
"""Whether it is hateful; the first is what ROC-AUC calls positive."""


class _Meme(TaskRecord):
    id: Id
    img: str
    text: str
    label: Literal[0, 1]


def load(config: TaskConfig, folder: Path) -> Dataset:
    """Read ``queries`` and ``support``; images are named from the folder of ``images`` on, as ``img/42953.png``."""
    files = TaskFiles(config, folder)
    return files.dataset(_items(files, "queries"), _items(files, "support"))


def _items(files: TaskFiles, name: str) -> list[Item]:
    root = files.path("images").parent
    return [
        Item(meme.id, files.image(root, meme.img), meme.text, (CHOICES[1 - meme.label],), CHOICES)
        for meme in files.lines(name, _Meme)
    ]
