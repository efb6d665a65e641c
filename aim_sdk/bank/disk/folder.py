"""A bank's folder: that it is one, that it stays the one that was opened, and whose turn it is to write."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path

from filelock import FileLock, Timeout

from aim_sdk.errors import (
    AIMError,
    ArtifactNotFoundError,
    ArtifactWriteError,
    BankLockedError,
    CorruptArtifactError,
    did_you_mean,
)
from aim_sdk.files.atomic import sync_folder

INDEX, LOCK = "bank.sqlite", "bank.lock"
LOCK_SECONDS = 30.0
"""How long a writer waits for another one."""


class Folder:
    """A folder by its absolute path: ``os.chdir`` does not lead to another one."""

    def __init__(self, path: Path) -> None:
        self.path = Path(os.path.abspath(path))
        self._opened = _identity(self.path)
        self.writable = os.access(self.path, os.W_OK)
        self._lock = FileLock(self.path / LOCK)

    def check(self) -> None:
        """Refuse a folder that took the place of the one that was opened.

        Raises:
            ArtifactNotFoundError: it was moved or deleted meanwhile.
        """
        if _identity(self.path) != self._opened:
            raise ArtifactNotFoundError(
                f"{self.path}: this bank's folder was moved, deleted or replaced while it was open; nothing was "
                "changed. Next: open the bank again, where it is now."
            )

    @contextmanager
    def locked(self, seconds: float | None = None) -> Iterator[None]:
        """Hold the writer's lock, which ends with its process.

        Raises:
            BankLockedError: another process holds it for longer than ``seconds`` (None: ``LOCK_SECONDS``).
            ArtifactWriteError: the folder is read-only.
            ArtifactNotFoundError: the folder is not the one that was opened.
        """
        if not self.writable:
            raise ArtifactWriteError(f"{self.path}: this bank's folder is read-only; nothing can be added or changed.")
        self.check()  # before the lock makes a folder
        seconds = LOCK_SECONDS if seconds is None else seconds
        try:
            self._lock.acquire(timeout=seconds)
        except Timeout as error:
            raise BankLockedError(
                f"{self.path}: another process has been writing to this bank for {seconds:.0f} seconds. "
                "Try again when it has finished; reading works meanwhile."
            ) from error
        except OSError as error:
            raise ArtifactWriteError(f"{self.path / LOCK}: cannot be written ({error.strerror}).") from error
        try:
            self.check()
            yield
        finally:
            self._lock.release()

    def again(self) -> Folder:
        """The same folder with a lock of its own, for a forked process."""
        other = copy(self)
        other._lock = FileLock(self.path / LOCK)
        return other


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def prepare(path: Path, *, may_create: bool) -> None:
    """Make sure that a bank's folder exists.

    Raises:
        ArtifactNotFoundError: no bank is there, and none is to be created.
        CorruptArtifactError: the index is missing.
        ArtifactWriteError: it cannot be created.
    """
    try:
        _prepare(path, may_create=may_create)
    except (OSError, ValueError) as error:  # ValueError: not a valid file name
        if isinstance(error, AIMError):
            raise
        raise ArtifactNotFoundError(f"{path}: not a folder that can be used ({error}).") from error


def _prepare(path: Path, *, may_create: bool) -> None:
    for name in (INDEX, LOCK):
        if (path / name).is_symlink():  # otherwise writing would change a file elsewhere
            raise CorruptArtifactError(f"{path / name}: a link; a bank's files must be in its folder itself.")
    if (path / INDEX).is_file():
        if not (path / INDEX).stat().st_size and any(path.glob("segment-*.aim")):
            raise CorruptArtifactError(
                f"{path}: the index ({INDEX}) is empty. Next: `aim-icl bank verify {path} --rebuild-index`."
            )
        return
    if path.exists() and not path.is_dir():
        raise ArtifactNotFoundError(
            f"{path}: a bank is a folder, and this is a file. An exported bank is read by `aim-icl bank import`."
        )
    if path.is_dir() and any(path.glob("segment-*.aim")):
        raise CorruptArtifactError(
            f"{path}: the index ({INDEX}) is missing. Next: `aim-icl bank verify {path} --rebuild-index`."
        )
    if not may_create or (path.is_dir() and any(item.name != LOCK for item in path.iterdir())):
        if path.is_dir() and may_create:
            raise ArtifactNotFoundError(f"{path}: this folder holds something else; name an empty or a new one.")
        near = [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else []
        hint = "" if path.exists() else did_you_mean(path.name, near)
        raise ArtifactNotFoundError(f"{path}: no bank is there.{hint} `aim-icl bank add` creates one.")
    try:
        _make(path)
    except OSError as error:
        raise ArtifactWriteError(f"{path}: cannot be created ({error.strerror}).") from error


def _make(path: Path) -> None:
    """Make a folder and those above it, their names durable: what is added to it later must be found."""
    if path.is_dir():
        return
    _make(path.parent)
    path.mkdir(exist_ok=True)
    sync_folder(path.parent)
