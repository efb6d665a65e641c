"""easy-VQA's files: ``questions.json``, a list of question, answer and image number, and a folder of images."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import RootModel

from aim_sdk.evaluation.items import Dataset, Item
from aim_sdk.evaluation.tasks.config import TaskConfig
from aim_sdk.evaluation.tasks.files import TaskFiles

_KINDS: Final = dict.fromkeys(("yes", "no"), "yes/no") | dict.fromkeys(("circle", "rectangle", "triangle"), "shape")


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
