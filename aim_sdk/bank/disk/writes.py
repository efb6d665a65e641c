"""One write: records that are in the bank together or not at all, under a number of their own.

    segment = record {"bank": 2, ...} | write | write | ...
    write   = record {"write": number, "bytes": length, "crc32": of the body} | body: records

Numbers count the writes of a bank's whole life, without a gap. So what is missing is known by its number, whichever of
index and segments is the older one, and bytes that are no whole write are what was never finished.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, NonNegativeInt, PositiveInt, ValidationError

from aim_sdk.errors import CorruptArtifactError
from aim_sdk.files import records
from aim_sdk.files.records import ByteSource, Record, UnreadableError

_CHUNK = 1 << 20


class _Head(BaseModel):
    write: PositiveInt
    bytes: NonNegativeInt
    crc32: NonNegativeInt


@dataclass(frozen=True, slots=True)
class Write:
    """A write in a segment."""

    number: int
    segment: int
    start: int
    """Of its first record."""
    end: int
    crc32: int
    """Of the bytes between, as they were written."""


@dataclass(frozen=True, slots=True)
class Rest:
    """Bytes of a segment that are no write."""

    segment: int
    start: int
    end: int
    cut: bool
    """Whether they are the beginning of a write, as a killed process leaves it; otherwise they were altered."""


def framed(number: int, data: Sequence[bytes]) -> tuple[bytes, ...]:
    """Put the record that makes one write of them before some records."""
    checksum = 0
    for part in data:
        checksum = zlib.crc32(part, checksum)
    return records.encode({"write": number, "bytes": sum(map(len, data)), "crc32": checksum}), *data


def writes_of(source: ByteSource, segment: int, start: int, size: int, where: str) -> Iterator[Write | Rest]:
    """Yield the writes of a segment's bytes from ``start`` to ``size``, and what lies between them, in order.

    A write is as long as it says; whether its bytes are whole is another question (`is_whole`).
    """
    offset, lost = start, None
    while offset < size:
        record = record_at(source, offset, where)
        head = None if record is None else _head(record)
        if record is None or head is None:
            lost = offset if lost is None else lost
            offset = records.next_magic(source, offset + 1, size) if record is None else record.end
            continue
        if lost is not None:
            yield Rest(segment, lost, offset, cut=False)
            lost = None
        end = record.end + head.bytes
        if end > size:
            yield Rest(segment, offset, size, cut=True)
            return
        yield Write(head.write, segment, record.end, end, head.crc32)
        offset = end
    if lost is not None:
        yield Rest(segment, lost, size, cut=is_cut(source, lost, size))


def record_at(source: ByteSource, offset: int, where: str) -> Record | None:
    """The record at ``offset``, if it is whole as far as its header goes."""
    try:
        return records.read_record(source, offset, where)
    except UnreadableError:
        raise
    except CorruptArtifactError:
        return None


def _head(record: Record) -> _Head | None:
    try:
        return _Head.model_validate(record.header)
    except ValidationError:
        return None


def is_whole(source: ByteSource, write: Write) -> bool:
    """Whether every byte of a write is as it was written."""
    checksum = 0
    for offset in range(write.start, write.end, _CHUNK):
        checksum = zlib.crc32(source(offset, min(_CHUNK, write.end - offset)), checksum)
    return checksum == write.crc32


def is_cut(source: ByteSource, start: int, size: int) -> bool:
    """Whether bytes are the beginning of a record and no more, as a killed process leaves it."""
    head = source(start, records.HEAD)
    if len(head) < records.HEAD:
        return head[: len(records.MAGIC)] == records.MAGIC[: len(head)]
    return head.startswith(records.MAGIC) and start + records.HEAD + records.header_bytes(head) > size
