"""Documents of your own, as JSON lines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from aim_sdk.training.corpora.documents import Pair
from aim_sdk.training.corpora.drops import Dropped
from aim_sdk.training.corpora.formats import CorpusSource, Format, validated
from aim_sdk.training.corpora.json_files import first_json, open_json

if TYPE_CHECKING:
    from aim_sdk.training.corpora.config import CorpusConfig
    from aim_sdk.training.corpora.shards import Shard


class _JsonDocument(BaseModel):
    model_config = ConfigDict(strict=True)
    pairs: list[Any]


class _JsonPair(BaseModel):
    model_config = ConfigDict(strict=True)
    image: str
    text: str = ""
    answer: str
    similarity: float | None = None


class JsonLines(Format):
    """One ``{"pairs": [{"image", "text", "answer", "similarity"}]}`` per line; text and similarity may be left out.

    An image is a path, an address, or a data URI in base64.
    """

    name = "jsonl"
    files = '.jsonl of {"pairs": [{"image": ..., "answer": ...}]}'
    suffixes = (".jsonl", ".jsonl.gz", ".jsonl.zip")

    def recognises(self, path: Path) -> bool:
        first = first_json(path)
        return isinstance(first, dict) and isinstance(first.get("pairs"), list)

    def open(self, path: Path, config: CorpusConfig) -> Shard:
        return open_json(path)

    def pairs(self, record: Any, source: CorpusSource) -> Iterator[Pair | Dropped]:
        for raw in validated(_JsonDocument, record).pairs:
            try:
                pair = validated(_JsonPair, raw, "pair")
                image = source.images.anywhere(pair.image, source.shard)
                yield Pair(image, pair.text, pair.answer, pair.similarity)
            except Dropped as lost:
                yield lost
