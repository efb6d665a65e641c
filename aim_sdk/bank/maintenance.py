"""Care for a bank on disk: check it, make its index anew, and give back the room of what was removed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from filelock import FileLock

from aim_sdk.bank import records
from aim_sdk.bank.disk import INDEX, LOCK, LOCK_SECONDS, DiskStore
from aim_sdk.bank.entries import feature_record, row_of, settings_of
from aim_sdk.bank.index import Index, Row
from aim_sdk.bank.records import Record
from aim_sdk.bank.segments import SEGMENT_BYTES, Segments
from aim_sdk.errors import ArtifactNotFoundError, CorruptArtifactError
from aim_sdk.files import sync_folder

Advance = Callable[[int], None]
"""Hears of entries that are done."""


@dataclass(frozen=True, slots=True)
class BankStats:
    """What a bank holds and takes."""

    demonstrations: int
    fused_tokens: int
    bytes: int
    """Of all segments and the index."""
    reclaimable: int
    """Bytes that ``compact`` would give back, at least."""
    segments: int
    features: dict[str, int]
    """Bytes of kept vectors by name."""


def stats(store: DiskStore) -> BankStats:
    """Count what is there; reads the index and no tensor."""
    entries, live, tokens = store.index.totals()
    sizes = store.segments
    total = sum(sizes.size(segment) for segment in sizes.present())
    features: dict[str, int] = {}
    for name, segment, offset in store.index.features():
        record = records.read_record(store.segments.source(segment), offset, str(store.segments.path(segment)))
        features[name] = features.get(name, 0) + record.size
    opening = len(sizes.present()) * len(store.opening())
    spare = total - live - sum(features.values()) - opening
    index = sum(file.stat().st_size for file in store.path.glob(f"{INDEX}*"))
    return BankStats(entries, tokens, total + index, max(0, spare), len(sizes.present()), features)


def verify(store: DiskStore, advance: Advance = lambda _: None) -> list[str]:
    """Read every byte that is committed; return what is wrong, one line each."""
    problems: list[str] = []
    whole: set[tuple[int, int, str]] = set()
    try:
        store.index.check()
        rows = store.index.rows()
    except CorruptArtifactError as error:
        return [str(error)]
    for segment, size in store.index.sizes().items():
        try:
            for record in _checked(store.segments, segment, size):
                if isinstance(record, CorruptArtifactError):
                    problems.append(str(record))
                else:
                    whole.add((segment, record.offset, record.header.get("key", "")))
                    advance("key" in record.header)
        except CorruptArtifactError as error:
            problems.append(str(error))
    lost = [row.key for row in rows if (row.segment, row.offset, row.key) not in whole]
    return problems + [
        f"{store.path}: demonstration {key} has no whole record. "
        f"Next: `aim-icl bank remove {store.path} {key[:12]}`, and add it again."
        for key in lost
    ]


def rebuild_index(path: Path) -> list[str]:
    """Make the index anew from the segments; the old one is kept as ``bank.sqlite.old``. Return what was lost.

    Raises:
        ArtifactNotFoundError: there is no segment.
        CorruptArtifactError: no segment says what bank it is of.
    """
    segments = Segments(path)
    if not segments.present():
        raise ArtifactNotFoundError(f"{path}: no segment of a bank is there, so there is nothing to make an index of.")
    with FileLock(path / LOCK, timeout=LOCK_SECONDS):
        problems, replay = _replayed(segments)
        if replay.settings is None:
            raise CorruptArtifactError(f"{path}: no segment begins with a whole record of the bank's settings.")
        fresh = path / f"{INDEX}.new"
        _remove_index(fresh)
        index = Index(fresh, writable=True)
        index.create(replay.settings)
        with index.transaction():
            index.put(replay.rows.values())
            index.replace_segments(replay.sizes, replay.features)
        index.close()  # writes the log back into the file
        old = path / INDEX
        if old.exists():
            os.replace(old, path / f"{INDEX}.old")
        for suffix in ("-wal", "-shm"):
            old.with_name(old.name + suffix).unlink(missing_ok=True)
        os.replace(fresh, old)
        sync_folder(path)
    segments.forget()
    return problems


def compact(store: DiskStore, advance: Advance = lambda _: None) -> None:
    """Copy what is live into new segments and delete the old ones; a crash at any moment loses nothing.

    Raises:
        CorruptArtifactError: a live record is damaged; nothing is changed.
        ArtifactWriteError: the disk is full; nothing is changed.
    """
    with store.writing():
        old = store.index.sizes()
        store.segments.remove_orphans(old)
        rows: list[Row] = []
        features: list[tuple[str, int, int]] = []
        sizes: dict[int, int] = {}
        live, segment = live_records(store, advance), max(old, default=0) + 1
        end = {"replaces": sorted(old)}
        while True:
            writer = _Writer(store.opening())
            sizes[segment] = store.segments.append(segment, 0, writer.copy(live, end))
            rows += [replace(row, segment=segment, offset=offset) for row, offset in writer.rows]
            features += [(name, segment, offset) for name, offset in writer.features]
            if writer.done:
                break
            segment += 1
        with store.index.transaction():
            store.index.put(rows)
            store.index.replace_segments(sizes, features)
        store.changed()
        store.segments.remove_orphans(sizes)


def live_records(store: DiskStore, advance: Advance = lambda _: None) -> Iterator[tuple[Row | str, bytes]]:
    """The records of all entries in order, with their metadata of now, and then of their features by name."""
    rows = store.index.rows()
    for row in rows:
        where = str(store.segments.path(row.segment))
        data = records.rewrite(
            store.segments.source(row.segment), store.record(row), where, {"metadata": dict(row.metadata)}
        )
        yield replace(row, bytes=len(data)), data
        advance(1)
    keys = [row.key for row in rows]
    for name in sorted({name for name, *_ in store.index.features()}):
        vectors = store.features(name)
        held = [key for key in keys if key in vectors]
        for start in range(0, len(held), 1 << 14):
            part = held[start : start + (1 << 14)]
            yield name, feature_record(name, part, np.stack([vectors[key] for key in part]))


class _Writer:
    """One segment of a compaction: notes where it puts what."""

    def __init__(self, opening: bytes) -> None:
        self._opening = opening
        self.rows: list[tuple[Row, int]] = []
        self.features: list[tuple[str, int]] = []
        self.done = False

    def copy(self, live: Iterator[tuple[Row | str, bytes]], end: dict[str, list[int]]) -> Iterator[bytes]:
        """Yield the opening and live records up to a segment's size; behind the last one, what they replace."""
        yield self._opening
        place = len(self._opening)
        while place < SEGMENT_BYTES:
            what, data = next(live, (None, b""))
            if what is None:
                self.done = True
                yield records.encode(end)
                return
            if isinstance(what, Row):
                self.rows.append((what, place))
            else:
                self.features.append((what, place))
            yield data
            place += len(data)


class _Replay:
    """What the records of all segments, in order, add up to."""

    def __init__(self) -> None:
        self.settings: dict[str, str] | None = None
        self.rows: dict[str, Row] = {}
        self.features: list[tuple[str, int, int]] = []
        self.sizes: dict[int, int] = {}

    def apply(self, segment: int, record: Record) -> None:
        header = record.header
        self.sizes[segment] = record.end
        if "bank" in header:
            self.settings = self.settings or settings_of(header)
        elif "key" in header:
            tokens = int(header["parts"]["fused"]["shape"][0])
            self.rows[header["key"]] = row_of(header, record.size, tokens, segment, record.offset)
        elif "remove" in header:
            self.rows.pop(header["remove"], None)
        elif "tag" in header and header["tag"] in self.rows:
            self.rows[header["tag"]] = replace(self.rows[header["tag"]], metadata=header["metadata"])
        elif "features" in header:
            self.features.append((header["features"], segment, record.offset))


def _replayed(segments: Segments) -> tuple[list[str], _Replay]:
    """Replay all segments but those that a finished compaction has replaced."""
    found: dict[int, list[Record]] = {}
    problems: list[str] = []
    for segment in segments.present():
        found[segment] = []
        for record in _checked(segments, segment, segments.size(segment)):
            if isinstance(record, CorruptArtifactError):
                problems.append(str(record))
            else:
                found[segment].append(record)
    replaced = {old for whole in found.values() for record in whole for old in record.header.get("replaces", ())}
    replay = _Replay()
    for segment, whole in found.items():
        if segment not in replaced:
            for record in whole:
                replay.apply(segment, record)
    return problems, replay


def _checked(segments: Segments, segment: int, size: int) -> Iterator[Record | CorruptArtifactError]:
    """The records of a segment; one of which a part is damaged counts as damaged."""
    source, where = segments.source(segment), str(segments.path(segment))
    for record in records.scan(source, size, where):
        if isinstance(record, CorruptArtifactError):
            yield record
            continue
        try:
            records.check_record(source, record, where)
        except CorruptArtifactError as error:
            yield error
        else:
            yield record


def _remove_index(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
