"""Multimodal C4: documents of sentences and images, with the CLIP similarity of every image and sentence.

As it is published: JSON lines, ``docs_no_face_shard_0_v2.jsonl.zip``, and an image folder. As OpenFlamingo converts it:
tars of one JSON file per document, with the images inside in base64.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from aim_sdk.training.corpora.documents import Pair
from aim_sdk.training.corpora.drops import Dropped
from aim_sdk.training.corpora.formats import CorpusSource, Format, validated
from aim_sdk.training.corpora.json_files import JsonShard, first_json, open_json, parse_json
from aim_sdk.training.corpora.shards import read_span
from aim_sdk.training.corpora.similarity import match
from aim_sdk.training.corpora.tars import tar_spans

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from aim_sdk.training.corpora.config import CorpusConfig
    from aim_sdk.training.corpora.shards import Shard
    from aim_sdk.types import ImageInput


class _Mmc4Document(BaseModel):
    model_config = ConfigDict(strict=True)
    text_list: list[str]
    image_info: list[Any]
    similarity_matrix: list[list[float]] | None = None


class _Mmc4Image(BaseModel):
    model_config = ConfigDict(strict=True)
    image_name: str | None = None
    raw_url: str | None = None
    image_base64: str | None = None
    matched_text_index: int | None = None
    matched_sim: float | None = None


class Mmc4(Format):
    """JSON lines of documents, and an image folder.

    An image is looked up by its ``image_name``, then by its ``raw_url``. Those that exist and are large enough are
    matched with the sentences (see `aim_sdk.training.corpora.similarity.match`) by ``similarity_matrix``; if there is
    none, or ``one_to_one`` is off, an image goes to its ``matched_text_index``.
    """

    name = "mmc4"
    files = "docs_shard_*.jsonl, .jsonl.gz or .jsonl.zip with `text_list` and `image_info`"
    suffixes: ClassVar[tuple[str, ...]] = (".jsonl", ".jsonl.gz", ".jsonl.zip")
    compares = True

    def recognises(self, path: Path) -> bool:
        return _is_document(first_json(path))

    def open(self, path: Path, config: CorpusConfig) -> Shard:
        return open_json(path)

    def requires(self, config: CorpusConfig) -> tuple[str, ...]:
        return ("scipy.optimize",) if config.one_to_one else ()

    def pairs(self, record: Any, source: CorpusSource) -> Iterator[Pair | Dropped]:
        document = validated(_Mmc4Document, record)
        if not any(text.strip() for text in document.text_list):
            raise Dropped("document without text")
        images: dict[int, ImageInput] = {}
        infos: dict[int, _Mmc4Image] = {}
        for number, raw in enumerate(document.image_info):
            try:
                infos[number] = validated(_Mmc4Image, raw, "pair")
                images[number] = _find(infos[number], source)
            except Dropped as lost:
                yield lost
        similarity = _similarities(document, infos, images, source)
        undecodable = set(np.flatnonzero(np.isnan(similarity).all(1)).tolist()) if source.clip else set()
        similarity[:, [not text.strip() for text in document.text_list]] = np.nan
        found = list(images.values())
        matched = match(similarity, one_to_one=source.config.one_to_one)
        for image, sentence in matched:
            yield Pair(found[image], "", document.text_list[sentence], float(similarity[image, sentence]))
        for image in set(range(len(found))) - {image for image, _ in matched}:
            yield Dropped("image undecodable" if image in undecodable else "no sentence for the image", "pair")


class Mmc4Tar(Mmc4):
    """Tars of documents, one ``.json`` each, whose images are inside (``image_info[].image_base64``)."""

    name = "mmc4-tar"
    files = ".tar of .json with `text_list`, and `image_base64` in `image_info`"
    suffixes = (".tar",)

    def recognises(self, path: Path) -> bool:
        try:
            with path.open("rb") as file:
                spans = (span for name, span in islice(tar_spans(path), 20) if name.endswith(".json"))
                return any(_is_document(_parsed(read_span(file, span))) for span in spans)
        except (Dropped, OSError):
            return False

    def open(self, path: Path, config: CorpusConfig) -> Shard:
        return JsonShard(path.open("rb"), (span for name, span in tar_spans(path) if name.endswith(".json")))


def _is_document(value: object) -> bool:
    return isinstance(value, dict) and {"text_list", "image_info"} <= value.keys()


def _parsed(data: bytes) -> Any:
    try:
        return parse_json(data)
    except Dropped:
        return None


def _find(info: _Mmc4Image, source: CorpusSource) -> ImageInput:
    if info.image_base64 is not None:
        return source.images.base64(info.image_base64)
    lost = Dropped("image missing", "pair")
    if info.image_name:
        try:
            return source.images.named(info.image_name, source.shard)
        except Dropped as reason:
            lost = reason
    if info.raw_url is None or lost.reason != "image missing":
        raise lost
    return source.images.at(info.raw_url, source.shard)


def _similarities(
    document: _Mmc4Document, infos: dict[int, _Mmc4Image], images: dict[int, ImageInput], source: CorpusSource
) -> NDArray[np.float64]:
    """``(images found, sentences)``, NaN where a pair is ruled out."""
    if source.clip is not None:
        return source.clip.matrix(list(images.values()), document.text_list)
    shape = len(document.image_info), len(document.text_list)
    if source.config.one_to_one and document.similarity_matrix is not None:
        if [len(row) for row in document.similarity_matrix] != [shape[1]] * shape[0]:
            raise Dropped("malformed document")
        return np.array(document.similarity_matrix, np.float64).reshape(shape)[list(images)]
    found = np.full(shape, np.nan)
    for number, info in infos.items():
        if info.matched_text_index in range(shape[1]) and info.matched_sim is not None:
            found[number, info.matched_text_index] = info.matched_sim
    return found[list(images)]
