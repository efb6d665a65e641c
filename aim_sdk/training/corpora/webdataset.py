"""Tars of captioned images, as img2dataset writes them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from aim_sdk.files.photo_folders import IMAGE_SUFFIXES
from aim_sdk.training.corpora.documents import Pair
from aim_sdk.training.corpora.drops import Dropped
from aim_sdk.training.corpora.formats import CorpusSource, Format, validated
from aim_sdk.training.corpora.json_files import parse_json
from aim_sdk.training.corpora.shards import GroupedShard
from aim_sdk.training.corpora.tars import SampleShard, split_name, tar_spans

if TYPE_CHECKING:
    from aim_sdk.training.corpora.config import CorpusConfig
    from aim_sdk.training.corpora.shards import Shard


class _Metadata(BaseModel):
    model_config = ConfigDict(strict=True)
    caption: str | None = None
    similarity: float | None = None


class WebDataset(Format):
    """Samples ``key.jpg`` (or another usual suffix) with ``key.txt``, ``key.json``, or both.

    The caption is the text file, or else the JSON's ``caption``; the similarity is the JSON's ``similarity``. A
    document is
    ``config.group`` consecutive samples.
    """

    name = "webdataset"
    files = ".tar of KEY.jpg with KEY.txt or KEY.json"
    suffixes = (".tar",)
    grouped = True

    def recognises(self, path: Path) -> bool:
        try:
            names = [split_name(name) for name, _ in islice(tar_spans(path), 20)]
        except (Dropped, OSError):
            return False
        images = {key for key, suffix in names if f".{suffix}" in IMAGE_SUFFIXES}
        return any(key in images and suffix in ("txt", "json") for key, suffix in names)

    def open(self, path: Path, config: CorpusConfig) -> Shard:
        return GroupedShard(SampleShard(path), config.group)

    def pairs(self, record: Any, source: CorpusSource) -> Iterator[Pair | Dropped]:
        for sample in record:
            try:
                yield self._pair(sample, source)
            except Dropped as lost:
                yield lost

    def _pair(self, sample: dict[str, bytes] | Dropped, source: CorpusSource) -> Pair:
        if isinstance(sample, Dropped):
            raise sample
        image = next((data for suffix, data in sample.items() if f".{suffix}" in IMAGE_SUFFIXES), None)
        if image is None:
            raise Dropped("sample without an image", "sample")
        caption, similarity = _metadata(sample)
        return Pair(source.images.encoded(image), "", caption, similarity)


def _metadata(sample: dict[str, bytes]) -> tuple[str, float | None]:
    metadata = validated(_Metadata, parse_json(sample["json"], "sample") if "json" in sample else {}, "sample")
    if "txt" not in sample:
        return metadata.caption or "", metadata.similarity
    try:
        return sample["txt"].decode(), metadata.similarity
    except UnicodeDecodeError as error:
        raise Dropped("text is not Unicode", "pair") from error
