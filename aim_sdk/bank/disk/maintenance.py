"""Care for a bank on disk: count it, check it, make its index again, and give back the room of what was removed."""

from __future__ import annotations

import os
import shutil
import uuid
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from aim_sdk.bank import records
from aim_sdk.bank.disk import recovery, segments
from aim_sdk.bank.disk.entries import Base, Opening, feature_record
from aim_sdk.bank.disk.folder import INDEX, Folder
from aim_sdk.bank.disk.index import Index
from aim_sdk.bank.disk.rows import Known, Row, State
from aim_sdk.bank.disk.segments import Segments
from aim_sdk.bank.disk.store import DiskStore
from aim_sdk.errors import ArtifactError, ArtifactNotFoundError, CorruptArtifactError
from aim_sdk.files import sync_folder

Advance = Callable[[int], None]
"""Called with the number of entries that are done."""


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
    present = store.segments.present()
    features: dict[str, int] = {}
    for name, segment, offset in store.index.features():
        record = records.read_record(store.segments.source(segment), offset, str(store.segments.path(segment)))
        features[name] = features.get(name, 0) + record.size
    known = store.index.segments()
    frames = sum(_frame(store, known[number].base) for number in present if number in known)
    spare = sum(present.values()) - live - sum(features.values()) - frames
    index = 0
    for file in store.path.glob(f"{INDEX}*"):
        with suppress(FileNotFoundError):  # SQLite's log comes and goes
            index += file.stat().st_size
    return BankStats(entries, tokens, sum(present.values()) + index, max(0, spare), len(present), features)


def _frame(store: DiskStore, is_base: bool) -> int:
    """About the bytes of a segment's own records."""
    if not is_base:
        return len(store.opening.record())
    base = Base(run="0" * 32, through=store.index.state().write, part=0)
    return 2 * len(store.opening.model_copy(update={"base": base}).record(last=True))


def verify(store: DiskStore, advance: Advance = lambda _: None) -> list[str]:
    """Read every byte and compare the index with what the segments add up to; return what is wrong, one line each.

    Others may write and compact meanwhile: what is checked is the bank of one moment.
    """
    files = Segments(store.path)
    try:
        store.take_in()
        index = store.index
        index.check()
        rows, features, known, state = _snapshot(store, files)
        present = files.opened()
        scanned = recovery.scan_all(files, {n: max(known[n].seen, present.get(n, 0)) for n in known})
        base = [each for each in scanned if known[each.number].base and known[each.number].size]
        found = recovery.add_up(files, scanned, base, state.write, advance)
        missing = recovery.lost(files, known, present)
    except ArtifactError as error:
        return [str(error)]
    finally:
        files.forget()
    problems = [*([missing] if missing else []), *found.problems]
    for key in dict.fromkeys([*rows, *found.held.rows]):
        if key not in found.held.rows:
            problems.append(
                f"{store.path}: demonstration {key} has no whole record. "
                f"Next: `aim-icl bank remove {store.path} {key[:12]}`, and add it again."
            )
        elif rows.get(key) != found.held.rows[key]:
            problems.append(
                f"{store.path}: the index does not have demonstration {key} as the segments do. "
                f"Next: `aim-icl bank verify {store.path} --rebuild-index`."
            )
    if not problems and features != found.held.features:
        problems.append(str(index.damaged("its vectors are not those of the segments")))
    return problems


def _snapshot(
    store: DiskStore, files: Segments
) -> tuple[dict[str, Row], list[tuple[str, int, int]], dict[int, Known], State]:
    """The index of one moment, its segments opened: a compaction may delete them then, but not take them away."""
    while True:
        index = store.index
        with index.snapshot():
            found = {row.key: row for row in index.rows()}, index.features(), index.segments(), index.state()
        for number, known in found[2].items():
            if known.size:
                with suppress(CorruptArtifactError):
                    files.source(number)
        if index.segments() == found[2]:
            return found
        files.forget()


def rebuild_index(path: Path) -> list[str]:
    """Make the index again from the segments; the old one is kept as ``bank.sqlite.old``. Return what was lost.

    Raises:
        ArtifactNotFoundError: there is no segment.
        CorruptArtifactError: neither a segment nor the old index says what bank it is, or there are two banks'.
        BankLockedError: another process is writing.
    """
    folder = Folder(path)
    path, files = folder.path, Segments(folder.path)
    if not files.present():
        raise ArtifactNotFoundError(f"{path}: no segment of a bank is there, so there is nothing to make an index of.")
    try:
        with folder.locked():
            scanned = recovery.scan_all(files, files.present())
            settings, last, keys = _old(path / INDEX)
            found = recovery.replay(files, scanned, last)
            opening = next((each.opening for each in scanned if each.opening), None)
            settings = opening.settings() if opening else settings
            if not settings:
                raise CorruptArtifactError(f"{path}: no segment begins with a whole record of the bank's settings.")
            if (path / INDEX).exists():
                shutil.copyfile(path / INDEX, path / f"{INDEX}.old")
            _write_index(path, settings, found)
    finally:
        files.forget()
    gone = [key for key in keys if key not in found.held.rows] if found.problems else []
    return found.problems + [f"{path}: demonstration {key} is in no segment; add it again." for key in gone]


def _old(path: Path) -> tuple[dict[str, str], int, list[str]]:
    """What an index that may be damaged still says: its settings, its last write and its keys."""
    if not path.is_file():
        return {}, 0, []
    try:
        with closing(Index(path, writable=True)) as index:
            return index.settings(), index.state().write, index.keys(None)
    except ArtifactError:
        return {}, 0, []


def _write_index(path: Path, settings: Mapping[str, str], found: recovery.Replay) -> None:
    """In place, where the old index can be written, so that whoever has it open sees the change; else a new file."""
    try:
        if (path / INDEX).is_file():
            with closing(Index(path / INDEX, writable=True)) as index:
                if not index.is_new:
                    _fill(index, settings, found)
                    return
    except CorruptArtifactError:
        pass  # it cannot be written in place
    fresh = path / f"{INDEX}.new"
    _remove(fresh, "", "-wal", "-shm")
    with closing(Index(fresh, writable=True)) as index:  # closing writes its log back into the file
        index.create(settings)
        _fill(index, settings, found)
    _remove(path / INDEX, "-wal", "-shm")  # before the rename: SQLite would take them for the new file's
    os.replace(fresh, path / INDEX)
    sync_folder(path)


def _fill(index: Index, settings: Mapping[str, str], found: recovery.Replay) -> None:
    with index.transaction(durable=True, fresh=True):
        index.clear()
        index.set_settings(settings)
        index.fill(found.write, found.held.rows.values(), found.segments, found.held.features, found.held.removed)
    index.check()


def _remove(path: Path, *suffixes: str) -> None:
    for suffix in suffixes:
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def compact(store: DiskStore, advance: Advance = lambda _: None) -> None:
    """Copy what is live into new segments and delete all others; a crash at any moment loses nothing.

    Raises:
        CorruptArtifactError: a live record is damaged; nothing is changed.
        ArtifactWriteError: the disk is full; nothing is changed.
    """
    with store.writing() as index:
        write, run = index.state().write, uuid.uuid4().hex
        if not (present := store.segments.present()):
            return
        first = number = max([*present, *index.segments()]) + 1
        rows: list[Row] = []
        features: list[tuple[str, int, int]] = []
        known: dict[int, Known] = {}
        live = live_records(store, index, advance)
        while True:
            base = Base(run=run, through=write, part=number - first)
            part = _Part(store.opening.model_copy(update={"base": base}))
            size = store.segments.create(number, part.copy(live))
            known[number] = Known(size, size, base=True)
            rows += [replace(row, segment=number, offset=offset) for row, offset in part.rows]
            features += [(name, number, offset) for name, offset in part.features]
            if part.is_last:
                break
            number += 1
        with index.transaction(durable=True, fresh=True):
            index.clear()
            index.fill(write, rows, known, features)
        store.changed()
        store.segments.delete(n for n in store.segments.present() if n not in known)
        store.segments.forget(known)


def live_records(
    store: DiskStore, index: Index, advance: Advance = lambda _: None
) -> Iterator[tuple[Row | str, bytes]]:
    """The records of all entries in order, with their metadata of now, and then of their features by name.

    Positions close up where entries were removed.
    """
    rows, removed = index.rows(), index.removed()
    for row in rows:
        where = str(store.segments.path(row.segment))
        position = row.position - bisect_left(removed, row.position)
        changes = {"metadata": dict(row.metadata), "position": position}
        data = records.rewrite(store.segments.source(row.segment), store.record(row), where, changes)
        yield replace(row, position=position, bytes=len(data)), data
        advance(1)
    keys = [row.key for row in rows]
    for name in sorted({name for name, *_ in index.features()}):
        vectors = store.features(name)
        held = [key for key in keys if key in vectors]
        for start in range(0, len(held), 1 << 14):
            part = held[start : start + (1 << 14)]
            yield name, feature_record(name, part, np.stack([vectors[key] for key in part]))


class _Part:
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
