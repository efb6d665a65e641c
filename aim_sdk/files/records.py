"""The bytes of a bank: records, which say what they hold and whether they are whole.

    record   = magic "AIM\\x01" | header bytes: u32 | payload bytes: u64 | crc-32: u32 | header: JSON | payload
    payload  = the parts that the header lists, one after another, each with its own crc-32

The record's crc-32 covers what is before it and the header. Numbers are little-endian. A segment and an exported
bank are records and nothing else.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from pydantic import BaseModel, NonNegativeInt, TypeAdapter
from torch import Tensor

from aim_sdk.errors import CorruptArtifactError, InputError

MAGIC = b"AIM\x01"
_FRAME = struct.Struct("<4sIQ")
_CRC = struct.Struct("<I")
HEAD = _FRAME.size + _CRC.size
HEADER_BYTES = 16 << 20
"""The most bytes of a header: texts, metadata and the keys of some thousand vectors."""
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8)
}


class Part(BaseModel):
    """What a header says of one part of the payload."""

    model_config = {"strict": True}
    dtype: Literal["float64", "float32", "bfloat16", "float16", "int64", "uint8"]
    shape: list[NonNegativeInt]
    bytes: NonNegativeInt
    crc32: NonNegativeInt


_PARTS = TypeAdapter(dict[str, Part])


class UnreadableError(CorruptArtifactError):
    """The system could not read some bytes, whatever they are."""


class ByteSource(Protocol):
    """Bytes of a file by place."""

    def __call__(self, offset: int, size: int) -> bytes:
        """Return ``size`` bytes, or fewer at the end."""


@dataclass(frozen=True, slots=True)
class Record:
    """A header that is whole, and where its payload is."""

    offset: int
    header: dict[str, Any]
    payload: int
    size: int
    """Of the whole record."""

    @property
    def end(self) -> int:
        return self.offset + self.size


def encode(header: Mapping[str, Any], parts: Mapping[str, Tensor | bytes] | None = None) -> bytes:
    """Make a record of a JSON header and named tensors or bytes."""
    listed, payload = {}, []
    for name, part in (parts or {}).items():
        data, kind = _bytes(part)
        listed[name] = {**kind, "bytes": len(data), "crc32": zlib.crc32(data)}
        payload.append(data)
    return _framed({**header, "parts": listed}, b"".join(payload))


def read_record(source: ByteSource, offset: int, where: str) -> Record:
    """Read the header of the record at ``offset``.

    Raises:
        CorruptArtifactError: there is no whole record; ``where`` names the file.
    """
    head = source(offset, HEAD)
    if len(head) < HEAD or not head.startswith(MAGIC):
        raise CorruptArtifactError(f"{where}: no record at byte {offset}.")
    _, length, payload = _FRAME.unpack(head[: _FRAME.size])
    text = source(offset + HEAD, length) if length <= HEADER_BYTES else b""
    if zlib.crc32(text, zlib.crc32(head[: _FRAME.size])) != _CRC.unpack(head[_FRAME.size :])[0]:
        raise CorruptArtifactError(f"{where}: the record at byte {offset} is cut or altered.")
    return Record(offset, _header(text, payload, offset, where), offset + HEAD + length, HEAD + length + payload)


def header_bytes(head: bytes) -> int:
    """The length of the header after the first ``HEAD`` bytes of a record."""
    return int(_FRAME.unpack(head[: _FRAME.size])[1])


def _header(text: bytes, payload: int, offset: int, where: str) -> dict[str, Any]:
    """A header whose checksum is right; its content is still untrusted."""
    try:
        header = json.loads(text)
        parts = _PARTS.validate_python(header["parts"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:  # pydantic's error is a ValueError
        raise CorruptArtifactError(f"{where}: the record at byte {offset} is malformed.") from error
    if any(math.prod(part.shape) * _DTYPES[part.dtype].itemsize != part.bytes for part in parts.values()):
        raise CorruptArtifactError(f"{where}: a part of the record at byte {offset} has another size than its shape.")
    if sum(part.bytes for part in parts.values()) != payload:
        raise CorruptArtifactError(f"{where}: the payload of the record at byte {offset} is not what its parts are.")
    found: dict[str, Any] = header
    return found


def read_part(source: ByteSource, record: Record, name: str, where: str) -> Tensor:
    """Read one part of a record's payload; bytes come as ``uint8``.

    Raises:
        CorruptArtifactError: it is cut or altered.
        KeyError: the record has no such part.
    """
    offset = record.payload
    for part, kind in record.header["parts"].items():
        if part == name:
            data = source(offset, kind["bytes"])
            if len(data) != kind["bytes"] or zlib.crc32(data) != kind["crc32"]:
                raise CorruptArtifactError(
                    f"{where}: {name!r} of the record at byte {record.offset} is cut or altered."
                )
            return _tensor(data, kind)
        offset += kind["bytes"]
    raise KeyError(name)


def check_record(source: ByteSource, record: Record, where: str) -> None:
    """Read every part.

    Raises:
        CorruptArtifactError: one is cut or altered.
    """
    for name in record.header["parts"]:
        read_part(source, record, name, where)


def rewrite(source: ByteSource, record: Record, where: str, changes: Mapping[str, Any]) -> bytes:
    """Copy a record with other header fields.

    Raises:
        CorruptArtifactError: a part is damaged.
    """
    check_record(source, record, where)
    payload = source(record.payload, record.end - record.payload)
    return _framed({**record.header, **changes}, payload)


def scan(source: ByteSource, size: int, where: str, offset: int = 0) -> Iterator[Record | CorruptArtifactError]:
    """Yield the records from ``offset`` to ``size``; for a damaged one, what is wrong, and then the next whole one.

    Raises:
        UnreadableError: the bytes cannot be read, so nothing is known about them.
    """
    while offset < size:
        try:
            record = read_record(source, offset, where)
            if record.end > size:
                raise CorruptArtifactError(f"{where}: the record at byte {offset} is cut by {record.end - size} bytes.")
            yield record
            offset = record.end
        except UnreadableError:
            raise
        except CorruptArtifactError as error:
            yield error
            offset = next_magic(source, offset + 1, size)


def _framed(header: Mapping[str, Any], payload: bytes) -> bytes:
    # Names of files may hold what is not text: Python keeps those bytes as lone surrogates, and so does the header.
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    if len(text) > HEADER_BYTES:
        raise InputError(f"texts and metadata of {len(text):,} bytes cannot be kept; at most {HEADER_BYTES:,} can.")
    frame = _FRAME.pack(MAGIC, len(text), len(payload))
    return b"".join([frame, _CRC.pack(zlib.crc32(text, zlib.crc32(frame))), text, payload])


def next_magic(source: ByteSource, offset: int, size: int) -> int:
    """Where the next record may begin, at ``offset`` or later; ``size`` if nowhere."""
    step = 1 << 20
    while offset < size:
        chunk = source(offset, step + len(MAGIC))
        if (found := chunk.find(MAGIC)) >= 0:
            return offset + found
        offset += step
    return size


def _bytes(part: Tensor | bytes) -> tuple[bytes, dict[str, Any]]:
    if isinstance(part, bytes):
        return part, {"dtype": "uint8", "shape": [len(part)]}
    whole = part.detach().cpu().contiguous()
    name = str(whole.dtype).removeprefix("torch.")
    return whole.view(torch.uint8).numpy().tobytes(), {"dtype": name, "shape": list(whole.shape)}


def _tensor(data: bytes, kind: Mapping[str, Any]) -> Tensor:
    if not data:
        return torch.empty(kind["shape"], dtype=_DTYPES[kind["dtype"]])
    raw = torch.from_numpy(np.frombuffer(data, np.uint8).copy())
    return raw.view(_DTYPES[kind["dtype"]]).view(kind["shape"])
