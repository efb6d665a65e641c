"""Captions in Karpathy's split files: ``dataset_coco.json``, ``dataset_flickr30k.json``."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from aim_sdk.evaluation.items import Dataset, Item
from aim_sdk.evaluation.tasks.config import TaskConfig
from aim_sdk.evaluation.tasks.files import Id, Options, TaskFiles, TaskRecord


class _KarpathyOptions(Options):
    queries: str
    support: str


class _Caption(TaskRecord):
    raw: str


class _KarpathyImage(TaskRecord):
    filename: str
    filepath: str = "images"
    split: str
    cocoid: Id | None = None
    sentences: list[_Caption] = Field(min_length=1)

    @property
    def id(self) -> str:
        """COCO's id; Flickr30k's images are identified by the file name, which is the photo's number at Flickr."""
        return self.cocoid or Path(self.filename).stem


class _KarpathyFile(TaskRecord):
    images: list[_KarpathyImage]


def load(config: TaskConfig, folder: Path) -> Dataset:
    """Read ``annotations``. An image is in the folder that ``files`` names for its ``filepath``, or else in ``images``.

    Options: ``queries`` and ``support``, the split of each.
    """
    files = TaskFiles(config, folder)
    options, images = files.options(_KarpathyOptions), files.read("annotations", _KarpathyFile).images

    def items(split: str) -> list[Item]:
        return [_item(image, files) for image in images if image.split == split]

    return files.dataset(items(options.queries), items(options.support))


def _item(image: _KarpathyImage, files: TaskFiles) -> Item:
    path = files.image(files.path(image.filepath), image.filename)
    return Item(image.id, path, "", tuple(sentence.raw for sentence in image.sentences))
