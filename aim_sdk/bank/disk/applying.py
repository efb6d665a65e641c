"""What records do to the rows that they are about: those of the index, or some in memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Protocol

from aim_sdk.bank.disk.entries import Entry, Removal, Tag, VectorsHeader, header_of, row_of
from aim_sdk.bank.disk.rows import Row
from aim_sdk.files.records import Record


class Rows(Protocol):
    """What records are applied to: the index, or rows in memory."""

    def get(self, key: str) -> Row | None: ...
    def put(self, rows: Iterable[Row]) -> None: ...
    def remove(self, keys: Iterable[str]) -> None: ...
    def put_features(self, name: str, segment: int, offset: int) -> None: ...


def apply(record: Record, segment: int, rows: Rows, where: str) -> None:
    """Do what a record says.

    Raises:
        CorruptArtifactError: it is not a record that a bank knows.
    """
    header = record.header
    if "key" in header:
        rows.put([row_of(header_of(record, Entry, where), record, segment)])
    elif "features" in header:
        rows.put_features(header_of(record, VectorsHeader, where).features, segment, record.offset)
    elif "remove" in header:
        rows.remove([header_of(record, Removal, where).remove])
    else:
        tag = header_of(record, Tag, where)
        if (row := rows.get(tag.tag)) is not None:
            rows.put([replace(row, metadata=tag.metadata)])


@dataclass
class Held:
    """Rows in memory, by key."""

    rows: dict[str, Row] = field(default_factory=dict)
    features: list[tuple[str, int, int]] = field(default_factory=list)
    removed: set[int] = field(default_factory=set)

    def get(self, key: str) -> Row | None:
        return self.rows.get(key)

    def put(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self.rows[row.key] = row
            self.removed.discard(row.position)

    def remove(self, keys: Iterable[str]) -> None:
        self.removed |= {row.position for key in keys if (row := self.rows.pop(key, None))}

    def put_features(self, name: str, segment: int, offset: int) -> None:
        self.features.append((name, segment, offset))
