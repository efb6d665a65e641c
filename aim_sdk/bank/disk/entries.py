"""The records that a bank writes, and checks for records from other sources.

Two more are small: ``{"remove": key}`` and ``{"tag": key, "metadata": ...}``.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import torch
from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    FiniteFloat,
    InstanceOf,
    NonNegativeInt,
    ValidationError,
    model_validator,
)
from torch import Tensor

from aim_sdk.bank.disk.rows import Row
from aim_sdk.bank.store import NewEntry, origin_of
from aim_sdk.config import Binding
from aim_sdk.errors import CorruptArtifactError, problem
from aim_sdk.files import records
from aim_sdk.files.images import load_image, read_image_file
from aim_sdk.files.records import Part, Record
from aim_sdk.types import ImageInput, LazyImage, Matrix

FORMAT: Literal[2] = 2
"""Of segments. An exported bank has one of its own: there, records are not grouped into writes."""
EXPORT: Literal[1] = 1


class Base(BaseModel):
    """A segment of a compaction: what all writes up to one of them add up to."""

    run: str
    through: NonNegativeInt = Field(description="the last write that it holds")
    part: NonNegativeInt = Field(description="which of the compaction's segments, from 0")


class Opening(BaseModel):
    """What a segment or an exported bank begins with."""

    bank: Literal[1, 2]
    id: str = Field(
        default="", description="names the bank, so that a segment of another bank is not mistaken for its own"
    )
    binding: Binding
    keep_readings: bool
    keep_images: bool
    base: Base | None = None

    def record(self, **more: Any) -> bytes:
        unset = {name for name in ("id", "base") if not getattr(self, name)}
        return records.encode(self.model_dump(mode="json", exclude=unset) | more)

    def settings(self) -> dict[str, str]:
        """As the index keeps them."""
        return {
            "id": self.id,
            "binding": self.binding.model_dump_json(),
            "keep_readings": str(int(self.keep_readings)),
            "keep_images": str(int(self.keep_images)),
        }

    @classmethod
    def from_settings(cls, settings: Mapping[str, str]) -> Opening:
        return cls(
            bank=FORMAT,
            id=settings["id"],
            binding=Binding.model_validate_json(settings["binding"]),
            keep_readings=settings["keep_readings"] == "1",
            keep_images=settings["keep_images"] == "1",
        )


def _is_text(text: str) -> str:
    text.encode()  # half of a surrogate pair is not text
    return text


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("blank")
    return text


Text = Annotated[str, AfterValidator(_is_text)]

Fields = dict[Text, Text | bool | int | FiniteFloat]


class Entry(BaseModel):
    """The header of a demonstration's record."""

    model_config = {"strict": True}
    key: Text = Field(min_length=1)
    position: int = Field(ge=0, lt=1 << 53)
    digest: Text
    image: InstanceOf[str] | None
    """A path, which need not be text."""
    text: Text
    answer: Annotated[Text, AfterValidator(_not_blank)]
    metadata: Fields
    image_position: int | None = Field(default=None, ge=0)
    answer_start: int | None = Field(default=None, ge=0)
    parts: dict[Literal["fused", "hidden", "token_ids", "image"], Part]

    @model_validator(mode="after")
    def _parts_fit(self) -> Entry:
        get = self.parts.get
        fused, hidden, token_ids, image = get("fused"), get("hidden"), get("token_ids"), get("image")
        if fused is None or len(fused.shape) != 2 or fused.dtype not in _REAL or not fused.bytes:
            raise ValueError("no fused tokens")
        tokens = fused.shape[0]
        if hidden and not token_ids:
            raise ValueError("half a reading")
        if token_ids and (token_ids.shape != [tokens] or token_ids.dtype != "int64"):
            raise ValueError("its token ids do not fit its fused tokens")
        if hidden:
            if hidden.shape[:1] != [tokens] or len(hidden.shape) != 2 or hidden.dtype not in _REAL:
                raise ValueError("its reading does not fit its fused tokens")
            places = (self.image_position, self.answer_start)
            if any(place is None or place > tokens for place in places):
                raise ValueError("the image or the answer lies outside its reading")
        if image and (image.dtype != "uint8" or len(image.shape) != 1):
            raise ValueError("an image that is not a file")
        if self.image is None and image is None:
            raise ValueError("no image")
        return self


_REAL = ("float32", "bfloat16", "float16")


class Removal(BaseModel):
    """The header of a removal."""

    model_config = {"strict": True}
    remove: Text


class Tag(BaseModel):
    """The header of a change of metadata."""

    model_config = {"strict": True}
    tag: Text
    metadata: Fields


class VectorParts(BaseModel):
    """The parts of a record of vectors."""

    vectors: Part


class VectorsHeader(BaseModel):
    """The header of a record of vectors, one per key."""

    model_config = {"strict": True}
    features: Text = Field(min_length=1, max_length=1000)
    keys: list[Text]
    parts: VectorParts

    @model_validator(mode="after")
    def _parts_fit(self) -> VectorsHeader:
        part = self.parts.vectors
        if part.dtype != "float32" or len(part.shape) != 2 or part.shape[0] != len(self.keys) or not part.bytes:
            raise ValueError("expected a vector of float32 per key")
        return self


Header = TypeVar("Header", bound=BaseModel)


def header_of(record: Record, kind: type[Header], where: str) -> Header:
    """What a record says; its content is untrusted.

    Raises:
        CorruptArtifactError: it is not a record of that kind.
    """
    try:
        return kind.model_validate(record.header)
    except ValidationError as error:
        raise CorruptArtifactError(
            f"{where}: the record at byte {record.offset} is malformed ({problem(error)})."
        ) from error


def row_of(entry: Entry, record: Record, segment: int = 0) -> Row:
    """The index row of a demonstration's record."""
    tokens = record.header["parts"]["fused"]["shape"][0]
    origin = origin_of(entry.digest, entry.text)
    return Row(entry.key, entry.position, segment, record.offset, record.size, tokens, origin, entry.metadata)


def entry_record(entry: NewEntry, *, keep_reading: bool, keep_image: bool) -> tuple[Row, bytes]:
    """The record of one demonstration, and its row but for its place."""
    shown = entry.demonstration
    path = os.path.abspath(shown.image) if isinstance(shown.image, str | os.PathLike) else None
    parts: dict[str, Tensor | bytes] = {"fused": entry.fused.embeddings}
    if entry.fused.token_ids is not None:
        parts["token_ids"] = entry.fused.token_ids
    header: dict[str, Any] = {
        "key": entry.key,
        "position": entry.position,
        "digest": entry.digest,
        "image": path,
        "text": shown.text,
        "answer": shown.answer,
        "metadata": dict(shown.metadata),
    }
    if keep_reading and entry.reading is not None:
        parts |= {"hidden": entry.reading.hidden, "token_ids": entry.reading.token_ids}
        header["image_position"] = entry.reading.image_position
        header["answer_start"] = entry.reading.answer_start
    if keep_image or path is None:
        parts["image"] = image_bytes(shown.image)
    data = records.encode(header, parts)
    origin = origin_of(entry.digest, shown.text)
    return Row(entry.key, entry.position, 0, 0, len(data), len(entry.fused), origin, header["metadata"]), data


def feature_record(name: str, keys: Sequence[str], vectors: Matrix) -> bytes:
    """The record of one vector per key."""
    return records.encode(
        {"features": name, "keys": list(keys)}, {"vectors": torch.from_numpy(np.ascontiguousarray(vectors, np.float32))}
    )


def image_bytes(image: ImageInput) -> bytes:
    """An image file's bytes; what is not a file yet becomes a PNG of what a model sees of it."""
    if isinstance(image, bytes):
        return image
    if isinstance(image, str | os.PathLike):
        return read_image_file(image)
    if isinstance(image, LazyImage):
        return image.image_file()
    file = io.BytesIO()
    load_image(image).save(file, "PNG")
    return file.getvalue()
