"""OBELICS: web documents as parquet, their images as addresses."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, model_validator

from aim_sdk.training.corpora.documents import Pair
from aim_sdk.training.corpora.drops import Dropped
from aim_sdk.training.corpora.formats import CorpusSource, Format, validated
from aim_sdk.training.corpora.parquet import ParquetShard, parquet_columns

if TYPE_CHECKING:
    from aim_sdk.training.corpora.config import CorpusConfig
    from aim_sdk.training.corpora.shards import Shard
    from aim_sdk.types import ImageInput

_COLUMNS = ["images", "texts"]


class _ObelicsDocument(BaseModel):
    """At each place there is an image or a text."""

    model_config = ConfigDict(strict=True)
    images: list[str | None]
    texts: list[str | None]

    @model_validator(mode="after")
    def _one_at_each_place(self) -> _ObelicsDocument:
        if len(self.images) != len(self.texts):
            raise ValueError("images and texts are not of one length")
        if any((image is None) == (text is None) for image, text in zip(self.images, self.texts, strict=True)):
            raise ValueError("a place has both or neither")
        return self


class Obelics(Format):
    """Rows whose columns ``images`` and ``texts`` are lists of one length, with one of both null at each place.

    An image belongs to the nearest text after it, the last images of a document to the text before them.
    With ``one_to_one`` a text takes only the image that stands nearest to it; of two, the one before it.
    Images are addresses: see `aim_sdk.training.corpora.images.CorpusImages`. ``metadata`` is ignored.
    """

    name = "obelics"
    files = ".parquet with the columns `images` and `texts`"
    suffixes = (".parquet",)

    def recognises(self, path: Path) -> bool:
        return parquet_columns(path) >= set(_COLUMNS)

    def open(self, path: Path, config: CorpusConfig) -> Shard:
        return ParquetShard(path, _COLUMNS)

    def requires(self, config: CorpusConfig) -> tuple[str, ...]:
        return ("pyarrow.parquet",)

    def pairs(self, record: Any, source: CorpusSource) -> Iterator[Pair | Dropped]:
        document = validated(_ObelicsDocument, record)
        found: dict[int, ImageInput] = {}
        for place, address in enumerate(document.images):
            if address is not None:
                try:
                    found[place] = source.images.anywhere(address, source.shard)
                except Dropped as lost:
                    yield lost
        texts = {place: text for place, text in enumerate(document.texts) if text and text.strip()}
        owners = {place: _owner(place, list(texts)) for place in found}
        nearest: dict[int | None, int] = {}
        for place in sorted(owners, key=lambda place: (_distance(place, owners[place]), place)):
            nearest.setdefault(owners[place], place)
        for place, text in owners.items():
            if text is None or (source.config.one_to_one and nearest[text] != place):
                yield Dropped("no text for the image", "pair")
            else:
                yield Pair(found[place], "", texts[text])


def _owner(image: int, texts: list[int]) -> int | None:
    """The text after the image, else the one before it."""
    following = bisect(texts, image)
    if not texts:
        return None
    return texts[following] if following < len(texts) else texts[-1]


def _distance(image: int, text: int | None) -> int:
    return 0 if text is None else abs(image - text)
