"""The records that a bank writes: its settings, demonstrations, vectors; and the index row of a demonstration.

Two more are small: ``{"remove": key}`` and ``{"tag": key, "metadata": ...}``.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aim_sdk.bank import records
from aim_sdk.bank.index import Row
from aim_sdk.bank.store import Matrix, NewEntry, origin_of
from aim_sdk.config import Binding
from aim_sdk.images import load_image
from aim_sdk.types import ImageInput


def opening_record(binding: Binding, keep_readings: bool, keep_images: bool) -> bytes:
    """What a file of records begins with."""
    settings = {"keep_readings": keep_readings, "keep_images": keep_images}
    return records.encode({"bank": 1, "binding": binding.model_dump(mode="json"), **settings})


def row_of(header: Mapping[str, Any], size: int, tokens: int, segment: int = 0, offset: int = 0) -> Row:
    """An index row from the header of an entry's record."""
    origin = origin_of(header["digest"], header["text"])
    return Row(header["key"], header["position"], segment, offset, size, tokens, origin, header["metadata"])


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
    return row_of(header, len(data), len(entry.fused)), data


def feature_record(name: str, keys: Sequence[str], vectors: Matrix) -> bytes:
    """The record of a vector a key."""
    return records.encode(
        {"features": name, "keys": list(keys)}, {"vectors": torch.from_numpy(np.ascontiguousarray(vectors, np.float32))}
    )


def image_bytes(image: ImageInput) -> bytes:
    """An image file's bytes; what is no file yet becomes a PNG of what a model sees of it."""
    if isinstance(image, bytes):
        return image
    if isinstance(image, str | os.PathLike):
        return Path(image).read_bytes()
    file = io.BytesIO()
    load_image(image).save(file, "PNG")
    return file.getvalue()


def settings_of(header: Mapping[str, Any]) -> dict[str, str]:
    """The index's settings from the record that begins a file."""
    return {
        "binding": json.dumps(header["binding"]),
        "keep_readings": str(int(header["keep_readings"])),
        "keep_images": str(int(header["keep_images"])),
    }
