"""Banks on disk: what is acknowledged survives power loss, a full disk and a torn end."""

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from aim_sdk import Demonstration, DemonstrationBank
from aim_sdk.bank.disk.writes import framed
from aim_sdk.errors import (
    ArtifactWriteError,
)
from tests.banks import CountingEncoder, answers, open_bank, segment


def test_what_was_synced_is_all_that_is_needed(
    path: Path, items: list[Demonstration], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Power loss: only what an fsync has covered is left of the segments, and of the index's log any part."""
    synced: dict[str, int] = {}
    fsync = os.fsync

    def noted(handle: int) -> None:
        fsync(handle)
        synced[os.readlink(f"/proc/self/fd/{handle}")] = os.fstat(handle).st_size

    monkeypatch.setattr(os, "fsync", noted)
    bank = open_bank(CountingEncoder(batch=1), path)
    for number, item in enumerate(items):
        bank.add([item])
        lost = path.with_name(f"after power loss {number}")
        shutil.copytree(path, lost)
        os.truncate(segment(lost), synced[str(segment(path))])
        log = lost / "bank.sqlite-wal"
        os.truncate(log, log.stat().st_size * (number % 4) // 4)
        assert str(path) in synced, "the segment's name is durable, too"
        with DemonstrationBank.open(lost) as left:
            assert answers(left) == [item.answer for item in items[: number + 1]]
            assert left.verify() == []


def test_a_torn_tail_is_set_aside(path: Path, bank: DemonstrationBank, items: list[Demonstration]) -> None:
    torn, whole = segment(path), segment(path).stat().st_size
    with torn.open("ab") as file:
        file.write(b"".join(framed(4, [b"x" * 999]))[:333])
    with open_bank(CountingEncoder(), path) as again:
        assert len(again) == len(items)
        assert again.verify() == []
        again.tag(next(iter(again)), label="x")
        assert again.verify() == []
        assert torn.stat().st_size == whole + 333, "nothing is deleted or cut"
        assert segment(path) != torn, "and nothing is written after it"
        again.compact()
        assert again.verify() == []
        assert not torn.exists()


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("place", ["pwrite", "short", "fsync"])
def test_a_full_disk_loses_nothing_and_the_next_try_goes_on(
    path: Path,
    bank: DemonstrationBank,
    items: list[Demonstration],
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    error: int,
) -> None:
    new = [Demonstration(item.image, "Again?", item.answer) for item in items]
    pwrite = os.pwrite
    calls = 0

    def failing(*arguments: Any) -> int:
        nonlocal calls
        calls += 1
        if place == "short" and calls % 3:  # some bytes of each write, then none
            return pwrite(arguments[0], arguments[1][: max(1, len(arguments[1]) // 2)], arguments[2])
        raise OSError(error, os.strerror(error))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync" if place == "fsync" else "pwrite", failing)
        with pytest.raises(ArtifactWriteError, match=os.strerror(error)) as raised:
            bank.add(new)
        assert isinstance(raised.value, OSError)
        assert answers(bank) == [item.answer for item in items]
    assert bank.verify() == []
    bank.add(new)
    assert len(bank) == 2 * len(items)
    assert bank.verify() == []


def test_short_writes_are_finished(path: Path, items: list[Demonstration], monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda handle, data, offset: pwrite(handle, data[:100], offset))
    with open_bank(CountingEncoder(), path) as bank:
        bank.add(items)
        assert bank.verify() == []


def test_an_index_that_cannot_be_written_loses_nothing(bank: DemonstrationBank, items: list[Demonstration]) -> None:
    database = bank._store.log.index._db._db  # type: ignore[attr-defined]
    database.execute("PRAGMA max_page_count=1")  # SQLite's own "disk is full"
    many = [Demonstration(items[0].image, "Again?", f"{n}", {"x": "y" * 900}) for n in range(100)]
    with pytest.raises(ArtifactWriteError, match="full"):
        bank.add(many)
    kept = len(bank)
    database.execute("PRAGMA max_page_count=1000000")
    assert bank.verify() == []
    bank.add(many)
    assert len(bank) == len(items) + 100 > kept
