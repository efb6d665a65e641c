"""Reads what an index row points at."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from aim_sdk.bank.disk.entries import Entry, VectorsHeader, header_of
from aim_sdk.bank.disk.rows import Row
from aim_sdk.bank.disk.segments import Segments
from aim_sdk.errors import CorruptArtifactError
from aim_sdk.files import records
from aim_sdk.files.records import Record


def entry_at(segments: Segments, row: Row) -> Record:
    """The record of an entry.

    Raises:
        CorruptArtifactError: it is damaged, or another entry's.
    """
    where = str(segments.path(row.segment))
    record = records.read_record(segments.source(row.segment), row.offset, where)
    if header_of(record, Entry, where).key != row.key:
        raise CorruptArtifactError(f"{where}: the record at byte {row.offset} is not that of {row.key}.")
    return record


def part_at(segments: Segments, row: Row, record: Record, name: str) -> Tensor:
    """One part of an entry's record.

    Raises:
        CorruptArtifactError: it is damaged.
    """
    return records.read_part(segments.source(row.segment), record, name, str(segments.path(row.segment)))


def vectors_at(segments: Segments, places: Iterable[tuple[str, int, int]]) -> dict[str, NDArray[np.float32]]:
    """The vectors of feature records (name, segment, offset), by key; of two of one key, the later one.

    Raises:
        CorruptArtifactError: a record is damaged.
    """
    found: dict[str, NDArray[np.float32]] = {}
    for _, segment, offset in places:
        source, where = segments.source(segment), str(segments.path(segment))
        record = records.read_record(source, offset, where)
        keys = header_of(record, VectorsHeader, where).keys
        found.update(zip(keys, records.read_part(source, record, "vectors", where).numpy(), strict=True))
    return found
