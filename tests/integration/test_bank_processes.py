"""Many processes at one bank: compactions, writers, rebuilds and readers, in loops and side by side."""

import os
import shutil
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import pytest

from aim_sdk import DemonstrationBank
from aim_sdk.bank import BankEntry
from aim_sdk.bank.disk import segments
from aim_sdk.bank.disk.maintenance import rebuild_index
from aim_sdk.errors import AIMError, UnknownEntryError
from tests.bank_attacks import SMALL, item, read, read_of
from tests.bank_processes import KEPT, Loop, breaks_and_rebuilds, compacts, kept_bank, opens, rebuilds, running, writes
from tests.banks import CountingEncoder, open_bank


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(segments, "SEGMENT_BYTES", SMALL)
    return kept_bank(tmp_path)


def is_there(entry: BankEntry) -> bool:
    """Whether it has its fused tokens; a writer may have removed it since the bank named it."""
    try:
        return len(entry.fused) > 0
    except UnknownEntryError:
        return False


def looks(bank: DemonstrationBank, tmp_path: Path) -> dict[str, Callable[[], object]]:
    def fresh() -> None:
        with DemonstrationBank.open(tmp_path / "bank") as opened:
            assert set(KEPT) <= {entry.demonstration.answer for entry in opened.values() if is_there(entry)}

    def export() -> None:
        bank.export(tmp_path / "bank.aim")
        shutil.rmtree(tmp_path / "imported", ignore_errors=True)
        with DemonstrationBank.import_file(tmp_path / "bank.aim", into=tmp_path / "imported") as other:
            assert set(KEPT) <= {entry.demonstration.answer for entry in other.values()}

    def iterate() -> None:
        assert set(KEPT) <= {entry.demonstration.answer for entry in bank.values() if is_there(entry)}

    def stats() -> None:
        assert bank.stats().demonstrations >= len(KEPT)

    def features() -> None:
        assert len(bank.view().features("reading")) >= len(KEPT)

    def verify() -> None:
        assert bank.verify() == []

    return {f.__name__: f for f in (fresh, export, iterate, stats, features, verify)}


@pytest.mark.parametrize("seconds", [0.5, pytest.param(6.0, marks=pytest.mark.slow)])
@pytest.mark.parametrize("read_only", [False, True], ids=["", "read-only"])
@pytest.mark.parametrize(
    "loops",
    [[compacts], [compacts, writes], [rebuilds, writes], [compacts, writes, rebuilds, opens]],
    ids=lambda loops: " ".join(loop.__name__ for loop in loops),
)
def test_nothing_healthy_is_called_damaged(
    tmp_path: Path, path: Path, loops: list[Loop], read_only: bool, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(path, loops, tmp_path / "said"):
        if read_only:
            monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
        with DemonstrationBank.open(path) as bank:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                for name, look in looks(bank, tmp_path).items():
                    if name == "export" and read_only:
                        continue  # it makes a bank, which cannot be written here
                    begun = time.monotonic()
                    look()
                    assert time.monotonic() - begun < 20, f"{name} does not end"
    monkeypatch.undo()
    assert set(KEPT) <= read(path).keys()
    with DemonstrationBank.open(path) as bank:
        assert bank.verify() == []
    assert rebuild_index(path) == []


def test_rebuilding_a_corrupt_index_under_a_writer_and_a_reader_loses_nothing(tmp_path: Path, path: Path) -> None:
    """In another process and in this one; what they add while the index is broken is refused by name or kept."""
    kept = list(KEPT)
    with (
        open_bank(CountingEncoder(), path) as bank,
        DemonstrationBank.open(path) as reader,
        running(path, [breaks_and_rebuilds], tmp_path / "said"),
    ):
        end, number = time.monotonic() + 1.0, 0
        while time.monotonic() < end:
            number += 1
            with suppress(AIMError):
                bank.add([item(f"new {number}")])
                kept.append(f"new {number}")
            with suppress(AIMError):
                assert set(KEPT) <= read_of(reader).keys()
    rebuild_index(path)
    assert set(kept) <= read(path).keys()
    assert len(kept) > len(KEPT)


@pytest.mark.parametrize("corrupt", [False, True])
def test_a_rebuild_in_this_process_under_an_open_bank(path: Path, corrupt: bool) -> None:
    with open_bank(CountingEncoder(), path) as writer, DemonstrationBank.open(path) as reader:
        for number in range(8):
            writer.add([item(f"before {number}")])
            if corrupt:
                (path / "bank.sqlite").unlink()
                (path / "bank.sqlite").write_bytes(b"broken" * 1000)
            assert rebuild_index(path) == []
            writer.add([item(f"after {number}")])
            expected = [*KEPT, *(f"{when} {n}" for n in range(number + 1) for when in ("before", "after"))]
            assert list(read_of(writer)) == list(read_of(reader)) == list(read(path)) == expected
        assert writer.verify() == reader.verify() == []


def test_what_another_process_does_in_between_is_no_raw_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_bank(CountingEncoder(), path) as bank, open_bank(CountingEncoder(), path) as other:
        looked_up, between = bank._store.held, list[Callable[[], object]]()

        def held(keys: Iterable[str]) -> object:
            found = looked_up(list(keys))
            while between:
                between.pop()()
            return found

        monkeypatch.setattr(bank._store, "held", held)
        between.append(lambda: other.add([item("both")]))
        keys = bank.add([item("both"), item("own")])
        assert list(read(path)) == [*KEPT, "both", "own"]
        between.append(lambda: other.remove(keys[0]))
        bank.tag(keys[0], label=1)
        between.append(lambda: other.remove(keys[1]))
        with pytest.raises(UnknownEntryError):
            bank.replace(keys[1], item("new"))
        assert list(read(path)) == KEPT
        assert bank.verify() == []
