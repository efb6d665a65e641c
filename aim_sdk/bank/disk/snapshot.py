"""A bank at one moment: what is read from it is consistent, while others write and compact."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from aim_sdk.bank.disk.index import Index
from aim_sdk.bank.disk.rows import Known, Row, State
from aim_sdk.bank.disk.segments import Segments
from aim_sdk.bank.disk.store import DiskStore
from aim_sdk.errors import CorruptArtifactError


@dataclass(frozen=True)
class Snapshot:
    """An index of one moment, with the segments that it is of."""

    files: Segments
    rows: list[Row]
    removed: list[int]
    features: list[tuple[str, int, int]]
    known: dict[int, Known]
    state: State


def taken(index: Index, files: Segments) -> Snapshot:
    """All that an index holds."""
    with index.snapshot():
        return Snapshot(files, index.rows(), index.removed(), index.features(), index.segments(), index.state())


@contextmanager
def snapshot(store: DiskStore, *, missing_ok: bool = False) -> Iterator[Snapshot]:
    """Take one, its segments open: a compaction may delete them, but not take them away.

    Raises:
        CorruptArtifactError: a segment is missing, and not ``missing_ok``.
    """
    files = Segments(store.path)

    def take() -> Snapshot:
        files.forget()
        now = taken(store.log.index, files)
        for number, known in now.known.items():
            if known.size:
                files.source(number)
        return now

    try:
        try:
            now = store.log.settled(take)
        except CorruptArtifactError:
            if not missing_ok:
                raise
            now = taken(store.log.index, files)
        yield now
    finally:
        files.forget()
