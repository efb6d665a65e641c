"""The protocol of docs/file-formats.md, state by state: what every crash can leave on the disk, and what is made of it.

A script changes a bank. Before every single thing that it asks of the disk (write, half a write, sync, rename, unlink,
commit of the index) the disk is copied, together with what a power loss would leave of it. Each copy is then combined
with the index of that moment, with that without its log, and with every older one. Whatever state that is: what is
found is what was acknowledged, with or without the write in flight, or it is refused with the command that mends it.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from aim_sdk import Demonstration, FusedTokens
from aim_sdk.bank.disk import connection, segments
from aim_sdk.bank.disk.compaction import compact
from aim_sdk.bank.disk.maintenance import rebuild_index, verify
from aim_sdk.bank.disk.store import DiskStore
from aim_sdk.bank.store import NewEntry
from aim_sdk.errors import ArtifactError
from tests.banks import binding

INDEX = ("bank.sqlite", "bank.sqlite-wal")
Files = dict[str, bytes]
Content = tuple[tuple[str, str, Any, tuple[float, ...]], ...]
"""Of each demonstration in order: key, answer, label, and its vector."""


@dataclass
class Moment:
    """The disk before something is asked of it."""

    what: str
    acknowledged: int
    """Which of the script's contents."""
    files: Files
    synced: Files
    """What a power loss leaves of the segments."""


@dataclass
class Disk:
    """Watches a folder: what is in it, and what of it is durable."""

    path: Path
    moments: list[Moment] = field(default_factory=list)
    acknowledged: int = 0
    synced: Files = field(default_factory=dict)
    """Content of each file at its last sync."""
    names: set[str] = field(default_factory=set)
    """Which of them a power loss leaves."""

    def note(self, what: str) -> None:
        files = {file.name: file.read_bytes() for file in self.path.iterdir() if file.name != "bank.sqlite-shm"}
        synced = {name: data for name, data in self.synced.items() if name in self.names}
        self.moments.append(Moment(what, self.acknowledged, files, synced))

    @contextmanager
    def watched(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        pwrite, fsync, unlink, transaction = os.pwrite, os.fsync, Path.unlink, connection.Connection.transaction

        def writing(handle: int, data: Any, offset: int) -> int:
            self.note("write")
            half = len(data) // 2
            pwrite(handle, data[:half], offset)
            self.note("half a write")
            return half + pwrite(handle, data[half:], offset + half)

        def syncing(handle: int) -> None:
            self.note("sync")
            name = Path(os.readlink(f"/proc/self/fd/{handle}"))
            if name == self.path:
                self.names = {file.name for file in self.path.glob("segment-*")}
            elif name.parent == self.path:
                self.synced[name.name] = name.read_bytes()

        def unlinking(file: Path, **options: Any) -> None:
            self.note("unlink")
            unlink(file, **options)

        @contextmanager
        def committing(*arguments: Any, **options: Any) -> Iterator[None]:
            self.note("begin")
            with transaction(*arguments, **options):
                yield
                self.note("commit")
            self.note("committed")

        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", writing)
            patch.setattr(os, "fsync", syncing)
            patch.setattr(Path, "unlink", unlinking)
            patch.setattr(connection.Connection, "transaction", committing)
            yield
        assert fsync is os.fsync


def fused_of(number: int) -> FusedTokens:
    return FusedTokens(torch.full((2, 2), float(number)), token_ids=torch.tensor([number, 7]))


def same(found: FusedTokens, expected: FusedTokens) -> bool:
    assert found.token_ids is not None
    assert expected.token_ids is not None
    return torch.equal(found.embeddings, expected.embeddings) and torch.equal(found.token_ids, expected.token_ids)


def entry(number: int, position: int) -> NewEntry:
    shown = Demonstration(b"image", "What?", f"answer {number}", {"n": number})
    return NewEntry(f"key {number}", position, "digest", shown, fused_of(number))


def vector(number: int) -> np.ndarray[Any, Any]:
    return np.full((1, 3), number, np.float32)


def add(store: DiskStore, *numbers: int, remove: tuple[int, ...] = ()) -> None:
    start = store.next_position()
    store.add(
        [entry(number, start + place) for place, number in enumerate(numbers)],
        remove=[f"key {number}" for number in remove],
        features={"v": np.concatenate([vector(number) for number in numbers])},
    )


SCRIPT: list[Callable[[DiskStore], None]] = [
    lambda store: add(store, 0, 1),
    lambda store: add(store, 2),
    lambda store: store.tag({"key 1": {"n": 1, "label": "x"}}),
    lambda store: add(store, 3, remove=(0,)),
    lambda store: store.add_features("w", ["key 1", "key 3"], np.zeros((2, 2), np.float32)),
    compact,
    lambda store: add(store, 4, 5),
    lambda store: store.add([], remove=["key 2", "key 4"]),
    compact,
    lambda store: add(store, 6),
]


def content(store: DiskStore) -> Content:
    """All that can be read, read in full."""
    found = []
    vectors = store.features("v")
    for listed in store.listed():
        shown, number = store.demonstration(listed.key), int(listed.key.split()[1])
        assert same(store.fused(listed.key), fused_of(number))
        assert shown.metadata == listed.metadata
        found.append((listed.key, shown.answer, listed.metadata.get("label"), tuple(vectors[listed.key].tolist())))
    assert [key for key, *_ in found] == store.ordered_keys()
    assert len(store) == len(found)
    return tuple(found)


@dataclass
class Record:
    """What the script did: the disk of every moment, and the contents that were acknowledged."""

    moments: list[Moment]
    contents: list[Content]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Record]:
    path = tmp_path_factory.mktemp("protocol") / "bank"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "SEGMENT_BYTES", 1200)
        store, disk = DiskStore(path, binding()), Disk(path)
        contents = [content(store)]
        for step in SCRIPT:
            with disk.watched(patch):
                step(store)
            contents.append(content(store))
            disk.acknowledged += 1
        disk.note("end")
        assert verify(store) == []
        store.close()
        yield Record(disk.moments, contents)


def after_power_loss(moment: Moment) -> Iterator[tuple[str, Files]]:
    """The segments as they may be: only what was synced; with part of what was not, or with zeros in its place."""
    now = {name: data for name, data in moment.files.items() if name.startswith("segment-")}
    yield "only synced", moment.synced
    half, zeros = dict(moment.synced), dict(moment.synced)
    for name, data in now.items():
        done = len(moment.synced.get(name, b""))
        half[name] = data[: (done + len(data)) // 2]
        zeros[name] = data[:done] + bytes(len(data) - done)
    yield "half of the rest", half
    yield "zeros for the rest", zeros
    yield "some deleted", now | {name: data for name, data in list(moment.synced.items())[::2] if name not in now}


def states(record: Record) -> Iterator[tuple[str, Moment, Files]]:
    """Every state: a name, its moment, and the files."""
    for number, moment in enumerate(record.moments):
        now = {name: data for name, data in moment.files.items() if name not in INDEX}
        name = f"{number} ({moment.what})"
        variants = [("killed", now), *((what, files) for what, files in after_power_loss(moment) if files != now)]
        older = {tuple(earlier.files.get(file) for file in INDEX): earlier for earlier in record.moments[: number + 1]}
        for what, files in variants:
            for indexes in older:
                for part, given in (("", indexes), (" without log", (indexes[0], None))):
                    index = {file: data for file, data in zip(INDEX, given, strict=True) if data is not None}
                    yield f"{name}, {what}, index of {older[indexes].what}{part}", moment, files | index


def allowed(record: Record, moment: Moment) -> set[Content]:
    """What was acknowledged, and the same with the write in flight."""
    return set(record.contents[moment.acknowledged : moment.acknowledged + 2])


def write_out(path: Path, files: Mapping[str, bytes]) -> None:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    for name, data in files.items():
        (path / name).write_bytes(data)


def serious(problems: list[str]) -> list[str]:
    """Without what a power loss leaves of a write that was never finished."""
    return [line for line in problems if "not a complete write" not in line]


def check(path: Path, record: Record, moment: Moment) -> bool:
    """Read, write, verify, rebuild; whether it was opened without a rebuild."""
    expected, refusal = allowed(record, moment), ""
    try:
        store = DiskStore(path)
        found = content(store)
    except ArtifactError as error:
        refusal = str(error)
    if refusal:
        assert "--rebuild-index" in refusal
        assert serious(rebuild_index(path)) == []
        store = DiskStore(path)
        found = content(store)
    assert found in expected
    assert serious(verify(store)) == []
    add(store, 99)
    new = ("key 99", "answer 99", None, (99.0, 99.0, 99.0))
    assert content(store) == (*found, new)
    store.close()
    for name in INDEX:
        (path / name).unlink(missing_ok=True)
    assert serious(rebuild_index(path)) == []
    store = DiskStore(path)
    assert content(store) == (*found, new)
    compact(store)
    assert content(store) == (*found, new)
    assert verify(store) == []
    store.close()
    return not refusal


def run(record: Record, path: Path, share: float) -> tuple[int, int]:
    dice = random.Random(0)
    done = opened = 0
    for name, moment, files in states(record):
        if dice.random() >= share:
            continue
        write_out(path, files)
        try:
            opened += check(path, record, moment)
        except BaseException as error:
            raise AssertionError(f"state {name}: {type(error).__name__}: {error}") from error
        done += 1
    return done, opened


@pytest.mark.parametrize("share", [0.02, pytest.param(0.3, marks=pytest.mark.slow)])
def test_every_state_is_what_was_acknowledged_or_says_what_to_do(
    recorded: Record, tmp_path: Path, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # thousands of banks
    done, opened = run(recorded, tmp_path / "bank", share)
    print(f"{len(recorded.moments)} moments, {done} states, {opened} opened as they were")
    assert done > 3000 * share
    assert opened > done // 4


def test_a_crash_alone_needs_no_rebuild(recorded: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill, and a power loss with the index at its last durable commit or later, open by themselves."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    for number, moment in enumerate(recorded.moments):
        write_out(tmp_path / "bank", moment.files)
        assert check(tmp_path / "bank", recorded, moment), f"{number} ({moment.what})"


def test_an_index_newer_than_its_segments_is_named(recorded: Record, tmp_path: Path) -> None:
    """A copy whose segments are older than its index, or are not all there: the other order."""
    path = tmp_path / "bank"
    named = 0
    last = recorded.moments[-1]
    for moment in recorded.moments[:-1]:
        files = {name: data for name, data in moment.files.items() if name not in INDEX}
        write_out(path, files | {name: last.files[name] for name in INDEX if name in last.files})
        complete = all(files.get(name) == data for name, data in last.files.items() if name.startswith("segment-"))
        try:
            store = DiskStore(path)
            problems = verify(store)
            if not complete:
                assert problems
                with pytest.raises(ArtifactError):
                    add(store, 99)
            store.close()
        except ArtifactError as error:
            problems = [str(error)]
        assert all("--rebuild-index" in line for line in problems[:1])
        if not complete and any(name.startswith("segment-") for name in files):
            lost = rebuild_index(path)
            store = DiskStore(path)
            assert lost or content(store) == recorded.contents[-1], "what is lost is named"
            store.close()
            named += 1
    assert named > 20
