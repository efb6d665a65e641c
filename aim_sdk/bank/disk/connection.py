"""A connection to the index's SQLite file: safe under threads, of a copy where the folder is read-only."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aim_sdk.bank.disk.rows import VERSION, summed
from aim_sdk.errors import ArtifactError, ArtifactWriteError, BankLockedError, CorruptArtifactError

_MOST = 1 << 62
"""Stored numbers are below it: twice as much is still an integer of SQLite's."""


class Connection:
    """Statements, transactions and errors.

    Args:
        path: the SQLite file.
        writable: whether its folder can be written; otherwise a copy in a temporary folder is opened.

    Raises:
        CorruptArtifactError: no SQLite file, or of another version.
        ArtifactWriteError: it cannot be opened.
    """

    def __init__(self, path: Path, *, writable: bool) -> None:
        self.path, self._writable, self._lock = path, writable, threading.RLock()
        self._db: sqlite3.Connection | None = None
        self._opened = 0
        self._closed = False
        self._file = self._signature()
        self._place = path if writable else _copy(path, self)
        try:
            with _MAKING, self._errors():
                _OPEN.add(self)
                self._check_version(int(self._open().execute("PRAGMA user_version").fetchone()[0]))
        except ArtifactError:
            self.close()
            raise

    @property
    def stale(self) -> bool:
        """Whether another file has taken this one's place (a rebuild), or a copy is older than what it is of."""
        return self._file != self._signature()

    @property
    def has_tables(self) -> bool:
        """Whether the index was made; an empty file is a new one."""
        return bool(self.all("PRAGMA user_version")[0][0])

    @property
    def in_transaction(self) -> bool:
        return self._db is not None and self._db.in_transaction

    def version(self) -> tuple[int, int]:
        """Changes with every commit of another connection."""
        with self._lock:
            return int(self.all("PRAGMA data_version")[0][0]), self._opened

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other threads out."""
        with self._lock:
            yield

    @contextmanager
    def transaction(self, *, durable: bool) -> Iterator[None]:
        """All changes of the block are made when it ends, or none is; ``durable`` syncs them."""
        with self._lock, self._errors():
            db = self._open()
            db.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            db.execute("BEGIN IMMEDIATE")
            try:
                yield
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """What is read in the block is of one moment."""
        with self._lock, self._errors():
            db = self._open()
            if db.in_transaction:
                yield
                return
            db.execute("BEGIN")
            try:
                yield
            finally:
                if db.in_transaction:  # an error may have ended it
                    db.execute("ROLLBACK")

    def execute(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run a statement once for each of the rows."""
        with self._lock, self._errors():
            self._open().executemany(sql, rows)

    def all(self, sql: str, given: Sequence[Any] = ()) -> list[Any]:
        """Every row that a statement finds."""
        with self._lock, self._errors():
            return self._open().execute(sql, given).fetchall()

    def checked(self, sql: str, kinds: Sequence[type], given: Sequence[Any] = ()) -> list[Any]:
        """Rows without the checksum that is their last value.

        Raises:
            CorruptArtifactError: it is another row's, or a value is not of its kind: SQLite keeps any in any column.
        """
        found = self.typed(sql, (*kinds, int), given)
        for values in found:
            if summed(values[:-1]) != values:
                raise self.damaged(f"the row of {values[0]!r} is altered")
        return [values[:-1] for values in found]

    def typed(self, sql: str, kinds: Sequence[type], given: Sequence[Any] = ()) -> list[Any]:
        """Rows of texts and of whole numbers from 0.

        Raises:
            CorruptArtifactError: a value is not of its kind.
        """
        found, expected = self.all(sql, given), tuple(kinds)
        for values in found:
            if tuple(map(type, values)) != expected or any(type(v) is int and not 0 <= v < _MOST for v in values):
                raise self.damaged(f"a row holds {values!r:.80}")
        return found

    def damaged(self, reason: str) -> CorruptArtifactError:
        """The error that says so, and how to repair it."""
        return CorruptArtifactError(
            f"{self.path}: the index is damaged ({reason}). The demonstrations are in the segments next to it.\n"
            f"Next: `aim-icl bank verify {self.path.parent} --rebuild-index`."
        )

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._let_go()

    def before_fork(self) -> None:
        """Close the file: SQLite's locks belong to a process. It is opened again when it is used again, by either."""
        self._lock.acquire()  # no statement is running
        if not self.in_transaction:
            self._let_go()

    def after_fork(self) -> None:
        """In parent and child, which has one thread, the one that forked."""
        self._lock.release()

    def _open(self) -> sqlite3.Connection:
        if self._closed:
            raise ArtifactError(f"{self.path}: the bank is closed.")
        if self._db is None:
            self._db = sqlite3.connect(self._place, timeout=30, isolation_level=None, check_same_thread=False)
            self._opened += 1
            for pragma in (
                "journal_mode=WAL",
                "synchronous=NORMAL",
                "trusted_schema=OFF",
            ):  # it may be another program's file
                self._db.execute(f"PRAGMA {pragma}")
        return self._db

    def _let_go(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def _check_version(self, version: int) -> None:
        if version == 1:
            raise CorruptArtifactError(
                f"{self.path}: format version 1, of a development version. Next: export this bank with the aim-icl "
                "that made it, and `aim-icl bank import` the file."
            )
        if version > VERSION:
            raise CorruptArtifactError(
                f"{self.path}: format version {version}, but this aim-icl reads {VERSION}. "
                "Next: install a newer aim-icl."
            )

    def _signature(self) -> tuple[int, ...]:
        """What tells one index file from another; of a copy also whether it has changed since."""
        found: tuple[int, ...] = ()
        copied = not self._writable
        for path in (self.path, _log(self.path)) if copied else (self.path,):
            try:
                status = path.stat()
            except OSError:
                continue
            found += (status.st_dev, status.st_ino, *((status.st_size, status.st_mtime_ns) if copied else ()))
        return found

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError) as error:  # a damaged text, even in one of SQLite's messages
            raise self._explained(error) from error

    def _explained(self, error: Exception) -> ArtifactError:
        text = str(error)
        if "locked" in text:
            return BankLockedError(f"{self.path}: another process keeps it locked. Try again when it has finished.")
        if any(word in text for word in ("readonly", "disk is full", "unable to open", "disk I/O")):
            return ArtifactWriteError(
                f"{self.path}: cannot be read or written ({text}). What was added before is safe."
            )
        return self.damaged(text)


def _log(path: Path) -> Path:
    """SQLite's write-ahead log of a file."""
    return path.with_name(path.name + "-wal")


def _copy(path: Path, owner: Connection) -> Path:
    """Copy the index to a folder that ends with its owner, in the process that made it.

    WAL needs a file next to the index even to read, and leaving the log out would miss the last commits.
    """
    folder = Path(tempfile.mkdtemp(prefix="aim-bank-"))
    weakref.finalize(owner, _remove, folder, os.getpid())
    for file in (path, _log(path)):
        if file.exists():
            shutil.copy(file, folder / file.name)
    return folder / path.name


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)


_OPEN: weakref.WeakSet[Connection] = weakref.WeakSet()
_FORKING: list[Connection] = []
_MAKING = threading.RLock()
"""Held while a connection is made: a child of a fork in between would wait for SQLite's own locks forever."""


def _before_fork() -> None:
    _MAKING.acquire()
    _FORKING[:] = list(_OPEN)
    for connection in _FORKING:
        connection.before_fork()


def _after_fork() -> None:
    for connection in reversed(_FORKING):
        connection.after_fork()
    _FORKING.clear()
    _MAKING.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
