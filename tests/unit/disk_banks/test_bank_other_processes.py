"""Banks on disk: readers and writers in other processes."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from PIL import Image

from aim_sdk import Demonstration, DemonstrationBank
from aim_sdk.bank.disk import folder
from aim_sdk.errors import (
    ArtifactNotFoundError,
    ArtifactWriteError,
    BankLockedError,
)
from tests.banks import CountingEncoder, answers, fused_of, open_bank


def test_a_read_only_folder_is_read_and_not_written(
    path: Path, bank: DemonstrationBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the last commits still in the log next to the index, as after a kill."""
    expected = answers(bank)
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    before = {file.name: file.stat().st_mtime_ns for file in path.iterdir()}
    with DemonstrationBank.open(path) as opened:
        assert answers(opened) == expected
        assert opened.verify() == []
        with pytest.raises(ArtifactWriteError, match="read-only"):
            opened.remove(next(iter(opened)))
    assert {file.name: file.stat().st_mtime_ns for file in path.iterdir()} == before


def test_a_second_writer_waits_and_then_gives_up(
    path: Path, bank: DemonstrationBank, items: list[Demonstration], monkeypatch: pytest.MonkeyPatch
) -> None:
    holding, free = threading.Event(), threading.Event()
    other = folder.FileLock(path / folder.LOCK)

    def hold() -> None:
        with other:
            holding.set()
            free.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    holding.wait(30)
    try:
        monkeypatch.setattr(folder, "LOCK_SECONDS", 0.2)
        assert len(answers(bank)) == len(items), "reading works meanwhile"
        with pytest.raises(BankLockedError, match="another process has been writing") as raised:
            bank.remove(next(iter(bank)))
        assert isinstance(raised.value, TimeoutError)
        monkeypatch.setattr(folder, "LOCK_SECONDS", 20)
        threading.Timer(0.2, free.set).start()
        bank.remove(next(iter(bank)))
    finally:
        free.set()
        thread.join()


def test_a_reader_follows_the_writer(path: Path, bank: DemonstrationBank, items: list[Demonstration]) -> None:
    with DemonstrationBank.open(path) as reader:
        assert answers(reader) == answers(bank)
        listed = reader.view().entries
        assert reader.view().entries is listed
        bank.remove(next(iter(bank)))
        entry = reader[next(iter(bank))]
        bank.compact()
        assert torch.equal(entry.fused.embeddings, fused_of(items[1])), "moved by the compaction meanwhile"
        bank.add([Demonstration(items[0].image, "", "new")])
        assert answers(reader) == answers(bank) == [*(f"answer {i}" for i in range(1, 8)), "new"]
        assert len(reader.view().entries) == len(items)


def add_some(path: str, name: str) -> None:
    """What each of the two processes does."""
    image = Image.new("RGB", (2, 2))
    with open_bank(CountingEncoder(batch=2), Path(path)) as bank:
        for start in range(0, 40, 4):
            pairs = [(kind, number) for number in range(start, start + 4) for kind in ("both", name)]
            bank.add([Demonstration(image, "t", f"{kind} {number}") for kind, number in pairs])


def test_two_processes_add_and_one_reads(path: Path) -> None:
    here = "tests.unit.disk_banks.test_bank_other_processes"
    program = f"from {here} import add_some; add_some({str(path)!r}, {{!r}})"
    writers = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", program.format(name)], stderr=subprocess.PIPE, text=True
        )
        for name in ("one", "two")
    ]
    seen: set[str] = set()
    while any(writer.poll() is None for writer in writers):
        if (path / "bank.sqlite").exists():
            try:
                reader = DemonstrationBank.open(path)
            except ArtifactNotFoundError:
                continue  # it is being made
            with reader:
                now = {entry.key for entry in reader.values() if entry.fused.embeddings.numel()}
                assert seen <= now
                seen = now
    assert [writer.communicate()[1] for writer in writers] == ["", ""]
    with DemonstrationBank.open(path) as bank:
        found = answers(bank)
        assert sorted(found) == sorted(f"{kind} {n}" for kind in ("both", "one", "two") for n in range(40))
        assert bank.verify() == []
