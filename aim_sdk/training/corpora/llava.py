"""LLaVA's instruction data: samples of one image and a conversation about it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from aim_sdk.training.corpora.documents import Pair
from aim_sdk.training.corpora.drops import Dropped
from aim_sdk.training.corpora.formats import CorpusSource, Format, validated
from aim_sdk.training.corpora.json_files import first_json, open_json
from aim_sdk.training.corpora.shards import GroupedShard

if TYPE_CHECKING:
    from aim_sdk.training.corpora.config import CorpusConfig
    from aim_sdk.training.corpora.shards import Shard

_IMAGE = "<image>"


class _Turn(BaseModel):
    model_config = ConfigDict(strict=True)
    speaker: str = Field(alias="from")
    value: str


class _Sample(BaseModel):
    model_config = ConfigDict(strict=True)
    image: str | list[str] | None = None
    conversations: list[_Turn]


class Llava(Format):
    """One list of ``{id, image, conversations: [{from, value}]}``, or one of them per line.

    A human turn and the answer to it are a pair; ``<image>`` is taken out of it. A document is ``config.group``
    consecutive samples with all their turns, so it has several images. Samples without an image, or with several,
    are left out.
    """

    name = "llava"
    files = ".json or .jsonl of samples with `image` and `conversations`"
    suffixes = (".json", ".json.gz", ".json.zip", ".jsonl", ".jsonl.gz", ".jsonl.zip")
    grouped = True

    def recognises(self, path: Path) -> bool:
        first = first_json(path)
        return isinstance(first, dict) and isinstance(first.get("conversations"), list)

    def open(self, path: Path, config: CorpusConfig) -> Shard:
        return GroupedShard(open_json(path), config.group)

    def pairs(self, record: Any, source: CorpusSource) -> Iterator[Pair | Dropped]:
        for raw in record:
            try:
                yield from self._sample(raw, source)
            except Dropped as lost:
                yield lost

    def _sample(self, raw: Any, source: CorpusSource) -> Iterator[Pair | Dropped]:
        if isinstance(raw, Dropped):
            raise raw
        sample = validated(_Sample, raw, "sample")
        names = [sample.image] if isinstance(sample.image, str) else sample.image or []
        if len(names) != 1:
            raise Dropped("sample of several images" if names else "sample without an image", "sample")
        image = source.images.named(names[0], source.shard)
        turns = [turn for turn in sample.conversations if turn.speaker != "system"]
        for asked, answered in zip(turns[::2], turns[1::2], strict=False):
            if (asked.speaker, answered.speaker) != ("human", "gpt"):
                raise Dropped("turns out of order", "sample")
            yield Pair(image, asked.value.replace(_IMAGE, ""), answered.value)
