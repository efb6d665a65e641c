"""The records that a bank writes, and what may stand in one that somebody else has written.

Two more are small: ``{"remove": key}`` and ``{"tag": key, "metadata": ...}``.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import AfterValidator, BaseModel, Field, FiniteFloat, InstanceOf, NonNegativeInt, ValidationError
from torch import Tensor

from aim_sdk.bank import records
from aim_sdk.bank.disk.rows import Row
from aim_sdk.bank.records import Record
from aim_sdk.bank.store import Matrix, NewEntry, origin_of
from aim_sdk.config import Binding
from aim_sdk.errors import CorruptArtifactError
from aim_sdk.images import load_image, read_image_file
from aim_sdk.types import ImageInput

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
    id: str = Field(default="", description="names the bank, so that no segment of another one is taken for its own")
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


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("blank")
    return text


class Entry(BaseModel):
    """The header of a demonstration's record."""

    model_config = {"strict": True}
    key: str = Field(min_length=1)
    position: int = Field(ge=0, lt=1 << 62)
    digest: str
    image: InstanceOf[str] | None
    """A path, which need not be text."""
    text: str
    answer: Annotated[str, AfterValidator(_not_blank)]
    metadata: dict[str, str | bool | int | FiniteFloat]
    image_position: NonNegativeInt = 0
    answer_start: NonNegativeInt = 0


def entry_of(record: Record, where: str) -> Entry:
    """What the record of a demonstration says.

    Raises:
        CorruptArtifactError: it is not that of a demonstration, or its parts are not those of one.
    """
    try:
        entry = Entry.model_validate(record.header)
    except ValidationError as error:
        first = error.errors()[0]
        what = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    else:
        shapes = {name: part["shape"] for name, part in record.header["parts"].items()}
        tokens = shapes.get("fused", [])[:1]
        if len(shapes.get("fused", [])) != 2:
            what = "no fused tokens"
        elif "hidden" in shapes and (shapes["hidden"][:1], shapes.get("token_ids")) != (tokens, tokens):
            what = "its reading has another length than its fused tokens"
        elif entry.image is None and "image" not in shapes:
            what = "no image"
        else:
            return entry
    raise CorruptArtifactError(f"{where}: the record at byte {record.offset} is no demonstration ({what}).")


def row_of(entry: Entry, record: Record, segment: int = 0) -> Row:
    """The index row of a demonstration's record."""
    tokens = record.header["parts"]["fused"]["shape"][0]
    origin = origin_of(entry.digest, entry.text)
    return Row(entry.key, entry.position, segment, record.offset, record.size, tokens, origin, entry.metadata)


def entry_record(entry: NewEntry, *, keep_reading: bool, keep_image: bool) -> tuple[Row, bytes]:
    """The record of one demonstration, and its row but for its place."""
    shown = entry.demonstration
    is_path = isinstance(shown.image, str | os.PathLike)
    parts: dict[str, Tensor | bytes] = {"fused": entry.fused}
    header: dict[str, Any] = {
        "key": entry.key,
        "position": entry.position,
        "digest": entry.digest,
        "image": os.path.abspath(shown.image) if isinstance(shown.image, str | os.PathLike) else None,
        "text": shown.text,
        "answer": shown.answer,
        "metadata": dict(shown.metadata),
    }
    if keep_reading and entry.reading is not None:
        parts |= {"hidden": entry.reading.hidden, "token_ids": entry.reading.token_ids}
        header["image_position"] = entry.reading.image_position
        header["answer_start"] = entry.reading.answer_start
    if keep_image or not is_path:
        parts["image"] = image_bytes(shown.image)
    data = records.encode(header, parts)
    origin = origin_of(entry.digest, shown.text)
    return Row(entry.key, entry.position, 0, 0, len(data), len(entry.fused), origin, header["metadata"]), data


def feature_record(name: str, keys: Sequence[str], vectors: Matrix) -> bytes:
    """The record of one vector per key."""
    return records.encode(
        {"features": name, "keys": list(keys)}, {"vectors": torch.from_numpy(np.ascontiguousarray(vectors, np.float32))}
    )


def vectors_of(record: Record, where: str) -> tuple[str, list[str]]:
    """The name and the keys of a record of vectors, whose part ``vectors`` is ``(keys, dim)`` float32.

    Raises:
        CorruptArtifactError: it is not such a record.
    """
    name, keys, part = (record.header.get("features"), record.header.get("keys"), record.header["parts"].get("vectors"))
    if (
        isinstance(name, str)
        and isinstance(keys, list)
        and all(isinstance(key, str) for key in keys)
        and part is not None
        and (part["dtype"], len(part["shape"]), part["shape"][:1]) == ("float32", 2, [len(keys)])
    ):
        return name, keys
    raise CorruptArtifactError(f"{where}: the record at byte {record.offset} does not hold vectors.")


def image_bytes(image: ImageInput) -> bytes:
    """An image file's bytes; what is no file yet becomes a PNG of what a model sees of it."""
    if isinstance(image, bytes):
        return image
    if isinstance(image, str | os.PathLike):
        return read_image_file(image)
    file = io.BytesIO()
    load_image(image).save(file, "PNG")
    return file.getvalue()
