"""A connection to the index's SQLite file: safe under threads, of a copy where the folder is read-only."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aim_sdk.bank.disk.rows import VERSION, summed
from aim_sdk.errors import ArtifactError, ArtifactWriteError, BankLockedError, CorruptArtifactError

_MOST = 1 << 62
"""Numbers are below it: twice as much still is one of SQLite's."""


class Connection:
    """Statements, transactions and errors.

    Args:
        path: the SQLite file.
        writable: whether its folder can be written; else a copy in a temporary folder is opened.

    Raises:
        CorruptArtifactError: no SQLite file, or of another version.
        ArtifactWriteError: it cannot be opened.
    """

    def __init__(self, path: Path, *, writable: bool) -> None:
        self.path, self._lock = path, threading.RLock()
        self._copy: tempfile.TemporaryDirectory[str] | None = None
        self._file = self._signature(copied=not writable)
        opened = path
        if not writable:
            # WAL needs a file besides the index even to read, and leaving it out would miss the last commits.
            self._copy = tempfile.TemporaryDirectory(prefix="aim-bank-")
            opened = Path(self._copy.name) / path.name
            for file in (path, _log(path)):
                if file.exists():
                    shutil.copy(file, opened.with_name(file.name))
        try:
            self._db = sqlite3.connect(opened, timeout=30, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise self._explained(error) from error
        try:
            with self._errors():
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute("PRAGMA synchronous=NORMAL")
                self._db.execute("PRAGMA trusted_schema=OFF")  # the file may be a stranger's
                self._check_version(int(self._db.execute("PRAGMA user_version").fetchone()[0]))
        except ArtifactError:
            self.close()
            raise

    @property
    def stale(self) -> bool:
        """Whether another file has taken this one's place (a rebuild), or a copy is older than what it is of."""
        return self._file != self._signature(copied=self._copy is not None)

    @property
    def has_tables(self) -> bool:
        """Whether the index was made; an empty file is a new one."""
        return bool(self.all("PRAGMA user_version")[0][0])

    @property
    def in_transaction(self) -> bool:
        return self._db.in_transaction

    def version(self) -> int:
        """Changes with every commit of another connection."""
        return int(self.all("PRAGMA data_version")[0][0])

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other threads out."""
        with self._lock:
            yield

    @contextmanager
    def transaction(self, *, durable: bool) -> Iterator[None]:
        """All changes of the block are made when it ends, or none is; ``durable`` syncs them."""
        with self._lock, self._errors():
            self._db.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """What is read in the block is of one moment."""
        with self._lock, self._errors():
            if self._db.in_transaction:
                yield
                return
            self._db.execute("BEGIN")
            try:
                yield
            finally:
                self._db.execute("COMMIT")

    def execute(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run a statement once for each of the rows."""
        with self._lock, self._errors():
            self._db.executemany(sql, rows)

    def all(self, sql: str, given: Sequence[Any] = ()) -> list[Any]:
        """Every row that a statement finds."""
        with self._lock, self._errors():
            return self._db.execute(sql, given).fetchall()

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
        """The error that says so, and what mends it."""
        return CorruptArtifactError(
            f"{self.path}: the index is damaged ({reason}). The demonstrations are in the segments next to it.\n"
            f"Next: `aim-icl bank verify {self.path.parent} --rebuild-index`."
        )

    def close(self) -> None:
        with self._lock:
            self._db.close()
            if self._copy:
                self._copy.cleanup()

    def _check_version(self, version: int) -> None:
        if version == 1:
            raise CorruptArtifactError(
                f"{self.path}: format version 1, of a development version. Next: export this bank with the aim-icl "
                "that made it, and `aim-icl bank import` the file."
            )
        if version > VERSION:
            raise CorruptArtifactError(
                f"{self.path}: format version {version}, but this aim-icl reads {VERSION}. "
                "Run `pip install -U aim-icl`."
            )

    def _signature(self, *, copied: bool) -> tuple[int, ...]:
        """What tells one index file from another; of a copy also whether it has changed since."""
        found: tuple[int, ...] = ()
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
        except sqlite3.Error as error:
            raise self._explained(error) from error

    def _explained(self, error: sqlite3.Error) -> ArtifactError:
        text = str(error)
        if isinstance(error, sqlite3.ProgrammingError):
            return ArtifactError(f"{self.path}: the bank is closed ({text}).")
        if "locked" in text:
            return BankLockedError(f"{self.path}: another process keeps it locked. Try again when it has finished.")
        if any(word in text for word in ("readonly", "disk is full", "unable to open", "disk I/O")):
            return ArtifactWriteError(f"{self.path}: cannot be written ({text}). What was added before is safe.")
        return self.damaged(text)


def _log(path: Path) -> Path:
    """SQLite's write-ahead log of a file."""
    return path.with_name(path.name + "-wal")
