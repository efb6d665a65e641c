"""Finds entries: a SQLite file beside the segments, which can be made again from them.

Every commit is synced (``synchronous=FULL``), readers do not wait for the writer (WAL). A row carries a checksum of its
own: SQLite does not notice a flipped byte inside a value.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aim_sdk.bank.store import Listed
from aim_sdk.errors import ArtifactError, ArtifactWriteError, BankLockedError, CorruptArtifactError
from aim_sdk.types import Metadata

VERSION = 1
_SCHEMA = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL, crc32 INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE segments (id INTEGER PRIMARY KEY, size INTEGER NOT NULL, crc32 INTEGER NOT NULL);
CREATE TABLE entries (
    key TEXT PRIMARY KEY, position INTEGER NOT NULL, segment INTEGER NOT NULL, offset INTEGER NOT NULL,
    bytes INTEGER NOT NULL, tokens INTEGER NOT NULL, origin TEXT NOT NULL, metadata TEXT NOT NULL,
    crc32 INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX entries_by_position ON entries (position, key);
CREATE TABLE features (
    name TEXT NOT NULL, segment INTEGER NOT NULL, offset INTEGER NOT NULL, crc32 INTEGER NOT NULL
);
"""
_ROW = "key, position, segment, offset, bytes, tokens, origin, metadata"
_MANY = 500
"""Keys a statement: SQLite's oldest limit is 999."""


@dataclass(frozen=True, slots=True)
class Row:
    """Where an entry's record is, and what filters look at."""

    key: str
    position: int
    segment: int
    offset: int
    bytes: int
    """Of the record."""
    tokens: int
    """Fused tokens."""
    origin: str
    metadata: Metadata

    def values(self) -> tuple[Any, ...]:
        """As the table has them, with the checksum."""
        metadata = json.dumps(self.metadata, ensure_ascii=False)
        place = (self.key, self.position, self.segment, self.offset, self.bytes, self.tokens)
        plain = (*place, self.origin, metadata)
        return _summed(plain)

    def listed(self) -> Listed:
        return Listed(self.key, self.origin, self.metadata)


class Index:
    """One connection, safe under threads.

    Args:
        path: the SQLite file; where its folder cannot be written, a copy in a temporary folder is read.
        writable: whether the folder can be written.
    """

    def __init__(self, path: Path, *, writable: bool) -> None:
        self.path, self._lock = path, threading.RLock()
        self._copy: tempfile.TemporaryDirectory[str] | None = None
        opened = path
        if not writable:
            # WAL needs a file beside the index even to read, and leaving it out would miss the last commits.
            self._copy = tempfile.TemporaryDirectory(prefix="aim-bank-")
            opened = Path(self._copy.name) / path.name
            for file in (path, path.with_name(path.name + "-wal")):
                if file.exists():
                    shutil.copy(file, opened.with_name(file.name))
        try:
            self._db = sqlite3.connect(opened, timeout=30, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise self._explained(error) from error
        try:
            with self._errors():
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute("PRAGMA synchronous=FULL")
                version = int(self._db.execute("PRAGMA user_version").fetchone()[0])
            if version > VERSION:
                raise CorruptArtifactError(
                    f"{path}: format version {version}, but this aim-icl reads {VERSION}. Run `pip install -U aim-icl`."
                )
        except ArtifactError:
            self.close()
            raise
        self.is_new = version == 0

    def create(self, settings: Mapping[str, str]) -> None:
        """Make the tables, all or none."""
        with self.transaction():
            for statement in _SCHEMA.split(";"):
                self._db.execute(statement)
            self._db.executemany("INSERT INTO settings VALUES (?, ?, ?)", map(_summed, settings.items()))
            self._db.execute(f"PRAGMA user_version={VERSION}")
        self.is_new = False

    def settings_exist(self) -> bool:
        """Whether the tables are there by now."""
        return bool(self._all("PRAGMA user_version")[0][0])

    def settings(self) -> dict[str, str]:
        return dict(self._checked("SELECT name, value, crc32 FROM settings"))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All statements of the block are committed and synced when it ends, or none is."""
        with self._lock, self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def version(self) -> int:
        """Changes with every commit of another connection."""
        return int(self._all("PRAGMA data_version")[0][0])

    def sizes(self) -> dict[int, int]:
        """Committed bytes of each segment."""
        return dict(self._checked("SELECT id, size, crc32 FROM segments ORDER BY id"))

    def set_size(self, segment: int, size: int) -> None:
        self._execute("INSERT OR REPLACE INTO segments VALUES (?, ?, ?)", [_summed((segment, size))])

    def put(self, rows: Iterable[Row]) -> None:
        self._execute(
            "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", [row.values() for row in rows]
        )

    def remove(self, keys: Iterable[str]) -> None:
        self._execute("DELETE FROM entries WHERE key = ?", [(key,) for key in keys])

    def put_features(self, name: str, segment: int, offset: int) -> None:
        self._execute("INSERT INTO features VALUES (?, ?, ?, ?)", [_summed((name, segment, offset))])

    def replace_segments(self, sizes: Mapping[int, int], features: Sequence[tuple[str, int, int]]) -> None:
        """Forget all segments and features but these: the end of a compaction."""
        self._db.execute("DELETE FROM segments")
        self._db.execute("DELETE FROM features")
        self._execute("INSERT INTO segments VALUES (?, ?, ?)", map(_summed, sizes.items()))
        self._execute("INSERT INTO features VALUES (?, ?, ?, ?)", map(_summed, features))

    def get(self, key: str) -> Row | None:
        return next(iter(self.find([key])), None)

    def find(self, keys: Sequence[str]) -> list[Row]:
        """The rows of those keys that are here."""
        found: list[Row] = []
        for start in range(0, len(keys), _MANY):
            part = keys[start : start + _MANY]
            marks = ", ".join("?" * len(part))
            found += self._rows(f"SELECT {_ROW}, crc32 FROM entries WHERE key IN ({marks})", part)
        return found

    def rows(self) -> list[Row]:
        """All rows, in order."""
        return self._rows(f"SELECT {_ROW}, crc32 FROM entries ORDER BY position, key", ())

    def keys(self, limit: int | None) -> list[str]:
        sql = "SELECT key FROM entries ORDER BY position, key LIMIT ?"
        return [key for (key,) in self._all(sql, (-1 if limit is None else limit,))]

    def next_position(self) -> int:
        return int(self._all("SELECT coalesce(max(position) + 1, 0) FROM entries")[0][0])

    def features(self, name: str | None = None) -> list[tuple[str, int, int]]:
        """Name, segment and offset of the feature records, in the order they were written."""
        where, given = ("", ()) if name is None else ("WHERE name = ?", (name,))
        return self._checked(f"SELECT name, segment, offset, crc32 FROM features {where} ORDER BY rowid", given)

    def totals(self) -> tuple[int, int, int]:
        """Entries, their bytes and their fused tokens."""
        entries, size, tokens = self._all("SELECT count(*), total(bytes), total(tokens) FROM entries")[0]
        return int(entries), int(size), int(tokens)

    def check(self) -> None:
        """Let SQLite check its file, and every row its checksum.

        Raises:
            CorruptArtifactError: the index is damaged.
        """
        problem = self._all("PRAGMA integrity_check")[0][0]
        if problem != "ok":
            raise self.damaged(problem)
        for read in (self.settings, self.sizes, self.rows, self.features):
            read()

    def close(self) -> None:
        with self._lock:
            self._db.close()
            if self._copy:
                self._copy.cleanup()

    def _execute(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        with self._lock, self._errors():
            self._db.executemany(sql, rows)

    def _all(self, sql: str, given: Sequence[Any] = ()) -> list[Any]:
        with self._lock, self._errors():
            return self._db.execute(sql, given).fetchall()

    def _rows(self, sql: str, given: Sequence[Any]) -> list[Row]:
        return [
            Row(key, position, segment, offset, size, tokens, origin, json.loads(metadata))
            for key, position, segment, offset, size, tokens, origin, metadata in self._checked(sql, given)
        ]

    def _checked(self, sql: str, given: Sequence[Any] = ()) -> list[Any]:
        """Rows without the checksum that is their last value."""
        found = self._all(sql, given)
        for values in found:
            if _summed(values[:-1]) != values:
                raise self.damaged(f"the row of {values[0]!r} is altered")
        return [values[:-1] for values in found]

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

    def damaged(self, reason: str) -> CorruptArtifactError:
        """The error that says so, and what mends it."""
        return CorruptArtifactError(
            f"{self.path}: the index is damaged ({reason}). The demonstrations are in the segments beside it.\n"
            f"Next: `aim-icl bank verify {self.path.parent} --rebuild-index`."
        )


def _summed(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """A row with its checksum."""
    return (*values, zlib.crc32(repr(values).encode()))
