"""easy-VQA's images, each with the box of its shape: of the pixels nearer to its colour than to the background's."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from aim_sdk.backend.box import Box
from aim_sdk.evaluation.boxes import boxes_text
from aim_sdk.evaluation.items import Dataset, Item
from aim_sdk.evaluation.tasks.config import TaskConfig
from aim_sdk.evaluation.tasks.easy_vqa import image_numbers
from aim_sdk.evaluation.tasks.files import Options, TaskFiles
from aim_sdk.files.images import load_image


class _BoxOptions(Options):
    question: str


def load(config: TaskConfig, folder: Path) -> Dataset:
    """Read the files of `easy-vqa`, and every image: one item for each. Option: the ``question``."""
    files = TaskFiles(config, folder)
    question = files.options(_BoxOptions).question
    return files.dataset(_items(files, "query", question), _items(files, "support", question))


def _items(files: TaskFiles, part: str, question: str) -> list[Item]:
    folder = files.path(f"{part}_images")
    paths = {image: files.image(folder, f"{image}.png") for image in image_numbers(files, part)}
    files.check_images()
    return [Item(str(image), path, question, (boxes_text([_box(path)]),)) for image, path in paths.items()]


def _box(path: str) -> Box:
    pixels = np.asarray(load_image(path), np.int32)
    _, places, often = np.unique(pixels @ (1 << 16, 1 << 8, 1), return_index=True, return_counts=True)
    background = pixels.reshape(-1, 3)[places[often.argmax()]]  # no shape is as large
    distance = np.abs(pixels - background).sum(2)
    down, across = (np.flatnonzero((distance > distance.max() / 2).any(axis)) for axis in (1, 0))
    height, width = distance.shape
    x1, x2, y1, y2 = across[0], across[-1] + 1, down[0], down[-1] + 1
    return Box(x1 / width, y1 / height, x2 / width, y2 / height)
