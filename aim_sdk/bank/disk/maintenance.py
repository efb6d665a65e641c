"""Maintenance of a bank on disk: count it, check it, rebuild its index."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from aim_sdk.bank.disk import recovery
from aim_sdk.bank.disk.entries import Base
from aim_sdk.bank.disk.folder import INDEX, Folder
from aim_sdk.bank.disk.index import Index
from aim_sdk.bank.disk.scanning import scan_all
from aim_sdk.bank.disk.segments import Segments
from aim_sdk.bank.disk.snapshot import snapshot
from aim_sdk.bank.disk.store import DiskStore
from aim_sdk.errors import ArtifactError, ArtifactNotFoundError, CorruptArtifactError
from aim_sdk.files import records
from aim_sdk.files.atomic import sync_folder, write_atomic, writing
from aim_sdk.support.progress import Advance


@dataclass(frozen=True, slots=True)
class BankStats:
    """What a bank holds, and the space it takes."""

    demonstrations: int
    fused_tokens: int
    bytes: int
    """Of all segments and the index."""
    reclaimable: int
    """Bytes that ``compact`` would reclaim, at least."""
    segments: int
    features: dict[str, int]
    """Bytes of kept vectors by name."""


def stats(store: DiskStore) -> BankStats:
    """Count what the bank holds; reads the index and no tensor."""
    with snapshot(store) as now:
        features: dict[str, int] = {}
        for name, segment, offset in now.features:
            record = records.read_record(now.files.source(segment), offset, str(now.files.path(segment)))
            features[name] = features.get(name, 0) + record.size
    present = store.log.segments.present()
    live = sum(row.bytes for row in now.rows)
    frames = sum(_frame(store, now.known[number].base) for number in present if number in now.known)
    spare = sum(present.values()) - live - sum(features.values()) - frames
    index = 0
    for file in store.path.glob(f"{INDEX}*"):
        with suppress(FileNotFoundError):  # SQLite's log comes and goes
            index += file.stat().st_size
    tokens = sum(row.tokens for row in now.rows)
    return BankStats(len(now.rows), tokens, sum(present.values()) + index, max(0, spare), len(present), features)


def _frame(store: DiskStore, is_base: bool) -> int:
    """About the bytes of a segment's own records."""
    if not is_base:
        return len(store.log.opening.record())
    base = Base(run="0" * 32, through=store.log.index.state().write, part=0)
    return 2 * len(store.log.opening.model_copy(update={"base": base}).record(last=True))


def verify(store: DiskStore, advance: Advance = lambda _: None) -> list[str]:
    """Read every byte and compare the index with what the segments add up to; return what is wrong, one line each.

    Other processes may write and compact in the meantime: the check covers the bank at one moment.
    """
    try:
        store.log.take_in()
        store.log.index.check()
        with snapshot(store, missing_ok=True) as now:
            known, present = now.known, now.files.opened()
            scanned = scan_all(now.files, {n: max(known[n].seen, present.get(n, 0)) for n in known})
            base = [each for each in scanned if known[each.number].base and known[each.number].size]
            found = recovery.add_up(now.files, scanned, base, now.state.write, advance)
            missing = recovery.lost(now.files, known, present)
    except ArtifactError as error:
        return [str(error)]
    problems = [*([missing] if missing else []), *found.problems]
    rows = {row.key: row for row in now.rows}
    for key in dict.fromkeys([*rows, *found.held.rows]):
        if key not in found.held.rows:
            problems.append(
                f"{store.path}: demonstration {key} has no whole record. "
                f"Next: `aim-icl bank remove {store.path} {key[:12]}`, and add it again."
            )
        elif rows.get(key) != found.held.rows[key]:
            problems.append(
                f"{store.path}: the index and the segments differ on demonstration {key}. "
                f"Next: `aim-icl bank verify {store.path} --rebuild-index`."
            )
    if not problems and now.features != found.held.features:
        problems.append(str(store.log.index.damaged("its vectors are not those of the segments")))
    return problems


def rebuild_index(path: Path) -> list[str]:
    """Rebuild the index from the segments; the old one is kept as ``bank.sqlite.old``. Return what was lost.

    Raises:
        ArtifactNotFoundError: there is no segment.
        CorruptArtifactError: neither a segment nor the old index says what bank it is, or there are two banks'; or
            something cannot be read now, which does not mean that it is damaged. Nothing is changed.
        BankLockedError: another process is writing.
    """
    try:
        folder = Folder(path)
        path, files = folder.path, Segments(folder.path)
        present = files.present()
    except (OSError, ValueError) as error:  # not a folder, or not a valid name
        raise ArtifactNotFoundError(f"{path}: not a bank's folder ({error}).") from error
    if not present:
        raise ArtifactNotFoundError(
            f"{path}: there is no segment of a bank, so there is nothing to build an index from."
        )
    try:
        with folder.locked(), writing(path, "No segment was changed."):
            scanned = scan_all(files, files.present())
            settings, last, keys = _old(path / INDEX)
            found = recovery.replay(files, scanned, last)
            opening = next((each.opening for each in scanned if each.opening), None)
            settings = opening.settings() if opening else settings
            if not settings:
                raise CorruptArtifactError(f"{path}: no segment begins with a whole record of the bank's settings.")
            if (path / INDEX).exists():
                write_atomic(path / f"{INDEX}.old", (path / INDEX).read_bytes())  # even over a link
            _write_index(path, settings, found)
    finally:
        files.forget()
    lost = found.missing or found.damaged
    gone = [key for key in keys if key not in found.held.rows] if lost else []
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
    """Write in place if possible, so that processes that have the index open see the change; otherwise a new file."""
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
    _remove(path / INDEX, "-wal", "-shm")  # before the rename, or SQLite would treat them as the new file's
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
