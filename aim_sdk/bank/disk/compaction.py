"""Reclaims the space of removed entries by copying everything that is live."""

from __future__ import annotations

import uuid
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from aim_sdk.bank.disk import segments
from aim_sdk.bank.disk.entries import Base, Opening, feature_record
from aim_sdk.bank.disk.reading import entry_at, vectors_at
from aim_sdk.bank.disk.rows import Known, Row
from aim_sdk.bank.disk.snapshot import Snapshot, taken
from aim_sdk.bank.disk.store import DiskStore
from aim_sdk.files import records
from aim_sdk.support.progress import Advance


def compact(store: DiskStore, advance: Advance = lambda _: None) -> None:
    """Copy what is live into new segments and delete all others; a crash at any moment loses nothing.

    Raises:
        CorruptArtifactError: a live record is damaged; nothing is changed.
        ArtifactWriteError: the disk is full; nothing is changed.
    """
    with store.log.writing() as index:
        write, run = index.state().write, uuid.uuid4().hex
        if not (present := store.log.segments.present()):
            return
        first = number = max([*present, *index.segments()]) + 1
        rows: list[Row] = []
        features: list[tuple[str, int, int]] = []
        known: dict[int, Known] = {}
        live = live_records(taken(index, store.log.segments), advance)
        while True:
            base = Base(run=run, through=write, part=number - first)
            part = _SegmentPart(store.log.opening.model_copy(update={"base": base}))
            size = store.log.segments.create(number, part.copy(live))
            known[number] = Known(size, size, base=True)
            rows += [replace(row, segment=number, offset=offset) for row, offset in part.rows]
            features += [(name, number, offset) for name, offset in part.features]
            if part.is_last:
                break
            number += 1
        with index.transaction(durable=True, fresh=True):
            index.clear()
            index.fill(write, rows, known, features)
        store.log.changes += 1
        store.log.segments.delete(n for n in store.log.segments.present() if n not in known)
        store.log.segments.forget(known)


def live_records(now: Snapshot, advance: Advance = lambda _: None) -> Iterator[tuple[Row | str, bytes]]:
    """The records of all entries in order, with their metadata of now, and then of their features by name.

    Positions close up where entries were removed.
    """
    for row in now.rows:
        position = row.position - bisect_left(now.removed, row.position)
        changes = {"metadata": dict(row.metadata), "position": position}
        source, where = now.files.source(row.segment), str(now.files.path(row.segment))
        data = records.rewrite(source, entry_at(now.files, row), where, changes)
        yield replace(row, position=position, bytes=len(data)), data
        advance(1)
    keys = [row.key for row in now.rows]
    for name in sorted({name for name, *_ in now.features}):
        vectors = vectors_at(now.files, [place for place in now.features if place[0] == name])
        held = [key for key in keys if key in vectors]
        for start in range(0, len(held), 1 << 14):
            part = held[start : start + (1 << 14)]
            yield name, feature_record(name, part, np.stack([vectors[key] for key in part]))


class _SegmentPart:
    """One segment of a compaction: notes where it puts what."""

    def __init__(self, opening: Opening) -> None:
        self._opening = opening
        self.rows: list[tuple[Row, int]] = []
        self.features: list[tuple[str, int]] = []
        self.is_last = False

    def copy(self, live: Iterator[tuple[Row | str, bytes]]) -> Iterator[bytes]:
        """Yield the opening, live records up to a segment's size, and the opening again, with ``last``."""
        yield self._opening.record()
        place = len(self._opening.record())
        while place < segments.SEGMENT_BYTES:
            what, data = next(live, (None, b""))
            if what is None:
                self.is_last = True
                break
            if isinstance(what, Row):
                self.rows.append((what, place))
            else:
                self.features.append((what, place))
            yield data
            place += len(data)
        yield self._opening.record(last=self.is_last)
