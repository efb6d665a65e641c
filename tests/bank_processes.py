"""Processes that do something to a bank again and again, and forks that are waited for."""

import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from aim_sdk import DemonstrationBank
from aim_sdk.bank.disk.maintenance import rebuild_index
from tests.bank_attacks import item
from tests.banks import CountingEncoder, open_bank

KEPT = [f"kept {number}" for number in range(24)]
"""What nobody touches."""


def kept_bank(folder: Path) -> Path:
    """Make a bank of them."""
    with open_bank(CountingEncoder(), folder / "bank") as bank:
        bank.add([item(answer) for answer in KEPT])
    return folder / "bank"


def compacts(path: Path) -> Iterator[None]:
    with open_bank(CountingEncoder(), path) as bank:
        while True:
            yield bank.compact()


def writes(path: Path) -> Iterator[None]:
    with open_bank(CountingEncoder(), path) as bank:
        for number in range(10**9):
            keys = bank.add([item(f"passing {os.getpid()} {number % 7}")])
            bank.tag(keys[0], number=number)
            yield bank.remove(*keys)


def rebuilds(path: Path) -> Iterator[None]:
    while True:
        assert rebuild_index(path) == []
        time.sleep(0.02)
        yield


def breaks_and_rebuilds(path: Path) -> Iterator[None]:
    """Somebody's index is damaged again and again, and made again from the segments."""
    while True:
        (path / "junk").write_bytes(b"no index at all" * 500)
        (path / "junk").replace(path / "bank.sqlite")
        rebuild_index(path)
        time.sleep(0.05)
        yield


def opens(path: Path) -> Iterator[None]:
    while True:
        with DemonstrationBank.open(path) as bank:
            assert set(KEPT) <= {entry.demonstration.answer for entry in bank.values()}
        yield


Loop = Callable[[Path], Iterator[None]]


@contextmanager
def running(path: Path, loops: list[Loop], said: Path) -> Iterator[None]:
    """Processes that do so until the block ends; what goes wrong in them fails the test."""
    children = [forked(lambda loop=loop: [None for _ in loop(path)], said) for loop in loops]  # type: ignore[misc]
    try:
        yield
    finally:
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    assert not said.exists(), said.read_text()


def forked(act: Callable[[], object], said: Path) -> int:
    child = os.fork()
    if child:
        return child
    try:
        act()
        os._exit(0)
    except BaseException:
        with said.open("a") as file:
            file.write(traceback.format_exc())
    finally:
        os._exit(1)


def wait(child: int, seconds: float = 90) -> int:
    """Its status; longer than a writer waits for another one, it may not take."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    pytest.fail("the child hangs")
