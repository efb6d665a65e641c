"""The tables of the index and their rows, each with a checksum: SQLite does not notice a flipped byte."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from typing import Any

from aim_sdk.bank.store import Listed
from aim_sdk.types import Metadata

VERSION = 2
SCHEMA = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL, crc32 INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE state (
    id INTEGER PRIMARY KEY, write INTEGER NOT NULL, entries INTEGER NOT NULL, digest INTEGER NOT NULL,
    features INTEGER NOT NULL, crc32 INTEGER NOT NULL
);
CREATE TABLE segments (
    id INTEGER PRIMARY KEY, size INTEGER NOT NULL, seen INTEGER NOT NULL, base INTEGER NOT NULL, crc32 INTEGER NOT NULL
);
CREATE TABLE entries (
    key TEXT PRIMARY KEY, position INTEGER NOT NULL, segment INTEGER NOT NULL, offset INTEGER NOT NULL,
    bytes INTEGER NOT NULL, tokens INTEGER NOT NULL, origin TEXT NOT NULL, metadata TEXT NOT NULL,
    crc32 INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX entries_by_position ON entries (position, key);
CREATE TABLE features (
    name TEXT NOT NULL, segment INTEGER NOT NULL, offset INTEGER NOT NULL, crc32 INTEGER NOT NULL
);
CREATE TABLE removed (position INTEGER PRIMARY KEY);
"""


@dataclass(frozen=True, slots=True)
class Row:
    """Where an entry's record is, and what filters look at."""

    key: str
    position: int
    segment: int
    offset: int
    bytes: int
    """Of the record."""
    tokens: int
    """Fused tokens."""
    origin: str
    metadata: Metadata

    def values(self) -> tuple[Any, ...]:
        """As the table has them, with the checksum."""
        metadata = json.dumps(self.metadata, ensure_ascii=False)
        place = (self.key, self.position, self.segment, self.offset, self.bytes, self.tokens)
        plain = (*place, self.origin, metadata)
        return summed(plain)

    def listed(self) -> Listed:
        return Listed(self.key, self.origin, self.metadata)


@dataclass(frozen=True, slots=True)
class State:
    """What the index holds, in numbers."""

    write: int
    """The last write that it knows; 0: none."""
    entries: int
    digest: int
    """Exclusive or of the rows' checksums."""
    features: int
    """Rows of features."""


@dataclass(frozen=True, slots=True)
class Known:
    """What the index knows of a segment."""

    size: int
    """Bytes whose records count."""
    seen: int
    """Bytes that were looked at; those after ``size`` are not a complete write, or one that a compaction has
    replaced."""
    base: bool
    """Whether a compaction made it: nothing is appended to it."""


def summed(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """A row with its checksum."""
    return (*values, zlib.crc32(repr(values).encode()))
