"""Calls of the system that fail, each in turn: named, and nothing is lost."""

import errno
import os
import resource
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from aim_sdk.bank.disk import segments
from aim_sdk.bank.disk.maintenance import rebuild_index
from aim_sdk.errors import AIMError
from tests.bank_acts import BEFORE, acts, check, prepared
from tests.bank_attacks import SMALL, item, read
from tests.banks import CountingEncoder, open_bank


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(segments, "SEGMENT_BYTES", SMALL)
    return prepared(tmp_path)


class Failing:
    """Functions of ``os`` of which the nth call that concerns a bank fails, and every later one if it is sticky."""

    NAMES = ("pwrite", "fsync", "ftruncate", "rename", "replace", "unlink", "open", "mkdir", "pread", "scandir", "stat")

    def __init__(self, nth: int, error: int, names: tuple[str, ...] = NAMES, *, sticky: bool = False) -> None:
        self.left, self.error, self.names, self.sticky = nth, error, names, sticky
        self.failed: list[str] = []

    def __enter__(self) -> "Failing":
        self._patch = pytest.MonkeyPatch()
        for name in self.names:
            self._patch.setattr(os, name, self._failing(name, getattr(os, name)))
        return self

    def __exit__(self, *_: object) -> None:
        self._patch.undo()

    def _failing(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if isinstance(arguments[0], int):  # a handle
                path = os.readlink(f"/proc/self/fd/{arguments[0]}")
            else:
                path = os.fspath(arguments[0])
            if any(part in path for part in ("/bank", "/made", "/out.aim", "/.aim-")):
                self.left -= 1
                if self.left == 0 or (self.sticky and self.left < 0):
                    self.failed.append(f"{name} {Path(path).name}")
                    raise OSError(self.error, os.strerror(self.error), path)
            return function(*arguments, **options)

        return call


@pytest.mark.parametrize(
    "nths", [(1, 5, 8, 13, 21, 34, 89), pytest.param(range(1, 2000, 3), marks=pytest.mark.slow)], ids=["some", "many"]
)
@pytest.mark.parametrize("sticky", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("act", list(acts(Path())))
def test_each_failing_call_is_named_and_loses_nothing(path: Path, act: str, sticky: bool, nths: Sequence[int]) -> None:
    kept, calls = path.with_name("kept"), 0
    shutil.copytree(path, kept)
    for number, nth in enumerate(nths):
        shutil.rmtree(path)
        shutil.rmtree(path.with_name("made"), ignore_errors=True)
        shutil.copytree(kept, path)
        with Failing(nth, errno.EIO if number % 2 else errno.ENOSPC, sticky=sticky) as failing:
            try:
                acts(path)[act]()
                done = True
            except AIMError:
                done = False
        calls += len(failing.failed)
        check(path, act, (nth, failing.failed), acknowledged=done)
        if not failing.failed:
            break
    assert calls


@pytest.mark.parametrize("limit", [1, 3000, 5000, 20_000, 40_000, 60_000])
def test_files_that_may_not_grow(path: Path, limit: int) -> None:
    """RLIMIT_FSIZE: writes are cut short, SQLite's and its shared memory's too."""
    child = os.fork()
    if child == 0:
        code = 3
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            code = 0
            for act in ("add", "compact", "tag", "rebuild"):
                try:
                    acts(path)[act]()
                except AIMError:
                    code = 1
        except BaseException:
            code = 3
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 1)
    found = read(path)
    assert list(found)[: len(BEFORE)] == list(BEFORE)
    with open_bank(CountingEncoder(), path) as bank:
        assert bank.verify() == []
        bank.add([item("new 1"), item("new 2")])
    assert rebuild_index(path) == []
    assert {*BEFORE, "passing", "new 1", "new 2"} == set(read(path))
