"""Banks that are open when a process forks: each side keeps what it adds, and nobody waits for ever."""

import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from aim_sdk import DemonstrationBank
from aim_sdk.bank.disk import segments
from tests.bank_attacks import SMALL, item, key_of, read, read_of
from tests.bank_processes import KEPT, forked, kept_bank, wait
from tests.banks import CountingEncoder, open_bank


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(segments, "SEGMENT_BYTES", SMALL)
    return kept_bank(tmp_path)


@pytest.mark.parametrize("adds", ["child", "parent", "both", "in turns"])
@pytest.mark.parametrize("read_only", [False, True], ids=["", "read-only reader"])
def test_both_sides_of_a_fork_keep_what_they_add(
    tmp_path: Path, path: Path, adds: str, read_only: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, said = set(KEPT), tmp_path / "said"
    with monkeypatch.context() as patch:
        if read_only:
            patch.setattr(os, "access", lambda *_: False)
        reader = DemonstrationBank.open(path)
        read_of(reader)
    with open_bank(CountingEncoder(), path) as bank:
        bank.add([item("before")])
        expected.add("before")
        for turn in range(4):

            def work(who: str, turn: int = turn, expected: set[str] = expected) -> None:
                for number in range(3):
                    bank.add([item(f"{who} {turn} {number}")])
                    bank.tag(key_of(bank, f"{who} {turn} {number}"), who=who)
                for seen in (bank, reader):
                    assert expected <= {entry.demonstration.answer for entry in seen.values()}
                if turn % 2:
                    bank.compact()

            child = forked(lambda work=work: work("child"), said) if adds != "parent" else 0  # type: ignore[misc]
            if child and adds == "in turns":
                assert wait(child) == 0, said.read_text()
            if adds != "child":
                work("parent")
            if child and adds != "in turns":
                assert wait(child) == 0, said.read_text()
            expected = expected | {f"child {turn} {n}" for n in range(3) if child}
            expected = expected | {f"parent {turn} {n}" for n in range(3) if adds != "child"}
            assert set(read_of(bank)) == set(read_of(reader)) == set(read(path)) == expected
        assert bank.verify() == []
    reader.close()


@pytest.mark.slow
def test_a_child_that_exits_normally_takes_nothing_along(path: Path) -> None:
    """With everything that Python does at an exit: closing connections, removing temporary folders."""
    program = f"""
import os, sys
from pathlib import Path
from aim_sdk import DemonstrationBank
from tests.bank_attacks import item, read_of
from tests.banks import CountingEncoder, open_bank
path = Path({str(path)!r})
access, os.access = os.access, lambda *_: False
reader = DemonstrationBank.open(path)
os.access = access
bank = open_bank(CountingEncoder(), path)
for number in range(5):
    bank.add([item(f"parent {{number}}")])
    child = os.fork()
    if child == 0:
        bank.add([item(f"child {{number}}")])
        assert all(entry.demonstration.answer for entry in reader.values())  # the parent adds meanwhile
        if number % 2:
            bank.close()
        sys.exit(0)
    bank.add([item(f"meanwhile {{number}}")])
    assert os.waitpid(child, 0)[1] == 0
    assert len(read_of(reader)) == len(read_of(bank)) == {len(KEPT)} + 3 * (number + 1)
assert bank.verify() == []
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    found = read(path)
    assert set(found) == {*KEPT, *(f"{who} {n}" for who in ("parent", "child", "meanwhile") for n in range(5))}


@pytest.mark.parametrize("forks", [8, pytest.param(200, marks=pytest.mark.slow)])
def test_forks_while_threads_write_and_read_never_hang(tmp_path: Path, path: Path, forks: int) -> None:
    said, stop, failed = tmp_path / "said", threading.Event(), list[str]()
    kept = set(KEPT)
    with open_bank(CountingEncoder(), path) as bank:

        def writing() -> None:
            number = 0
            while not stop.is_set():
                number += 1
                bank.add([item(f"thread {number}")])
                kept.add(f"thread {number}")
                if number % 20 == 0:
                    gone = [f"thread {n}" for n in range(number - 19, number - 2)]
                    bank.remove(*(key_of(bank, answer) for answer in gone))
                    kept.difference_update(gone)
                    bank.compact()
                time.sleep(0.01)  # or who asks for the lock now and then never finds it free

        def reading() -> None:
            while not stop.is_set():
                with DemonstrationBank.open(path) as reader:
                    assert set(KEPT) <= {entry.demonstration.answer for entry in reader.values()}

        def guarded(act: Callable[[], None]) -> None:
            try:
                act()
            except BaseException:
                failed.append(traceback.format_exc())

        threads = [threading.Thread(target=guarded, args=(act,)) for act in (writing, reading)]
        for thread in threads:
            thread.start()
        try:
            for number in range(forks):

                def work(number: int = number) -> None:
                    bank.add([item(f"child {number}")])
                    assert f"child {number}" in {entry.demonstration.answer for entry in bank.values()}

                assert wait(forked(work, said)) == 0, said.read_text()
                kept.add(f"child {number}")
        finally:
            stop.set()
            for thread in threads:
                thread.join(60)
        assert not failed, failed[0]
        assert set(read_of(bank)) == kept
        assert bank.verify() == []
