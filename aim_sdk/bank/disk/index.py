"""Finds entries: a SQLite file that can be rebuilt from the segments.

The segments are what is durable. So a commit here need not be synced: after a power loss the index may be some writes
older than the segments, and is brought up to date from them (`aim_sdk.bank.disk.recovery`). The state has a
checksum of all rows, so that a flipped byte does not hide a row silently.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import astuple, replace
from functools import reduce
from operator import xor
from pathlib import Path
from typing import Any

from aim_sdk.bank.disk.connection import Connection
from aim_sdk.bank.disk.rows import SCHEMA, VERSION, Known, Row, State, summed
from aim_sdk.errors import CorruptArtifactError
from aim_sdk.types import Metadata

_ROW = "key, position, segment, offset, bytes, tokens, origin, metadata"
_STATE = "id, write, entries, digest, features"
_MANY = 500
"""Keys per statement: SQLite's oldest limit is 999."""


class Index:
    """Where every demonstration's record is, in what order, and the last write that was taken in.

    Args:
        path, writable: see `aim_sdk.bank.disk.connection.Connection`.
    """

    def __init__(self, path: Path, *, writable: bool) -> None:
        self.path, self._db = path, Connection(path, writable=writable)
        self._pending: State | None = None
        self._complete_at: tuple[int, int] | None = None

    @property
    def stale(self) -> bool:
        """Whether it must be opened again; see `Connection.stale`."""
        return self._db.stale

    @property
    def is_new(self) -> bool:
        """Whether it has no tables yet."""
        return not self._db.has_tables

    def create(self, settings: Mapping[str, str]) -> None:
        """Make the tables and sync them, all or none."""
        with self.transaction(durable=True, fresh=True):
            for statement in SCHEMA.split(";"):
                self._db.all(statement)
            self.set_settings(settings)
            self._db.all(f"PRAGMA user_version={VERSION}")
        self._db.all("PRAGMA wal_checkpoint(TRUNCATE)")  # the file alone belongs to a bank, even if its log is lost

    def settings(self) -> dict[str, str]:
        return dict(self._db.checked("SELECT name, value, crc32 FROM settings", (str, str)))

    def set_settings(self, settings: Mapping[str, str]) -> None:
        self._db.execute("INSERT OR REPLACE INTO settings VALUES (?, ?, ?)", map(summed, settings.items()))

    @contextmanager
    def transaction(self, *, durable: bool = False, fresh: bool = False) -> Iterator[None]:
        """All changes of the block are made when it ends, or none is.

        Args:
            durable: sync them.
            fresh: begin from an empty state, in empty tables.
        """
        if not fresh:
            self._check_complete()
        with self._db.transaction(durable=durable):
            try:
                self._pending = State(0, 0, 0, 0) if fresh else self.state()
                yield
                row = summed((0, *astuple(self._pending)))
                self._db.execute("INSERT OR REPLACE INTO state VALUES (?, ?, ?, ?, ?, ?)", [row])
            finally:
                self._pending = None

    def snapshot(self) -> AbstractContextManager[None]:
        """What is read in the block is of one moment."""
        return self._db.snapshot()

    def version(self) -> tuple[int, int]:
        """Changes with every commit of another connection."""
        return self._db.version()

    def state(self) -> State:
        found = self._db.checked(f"SELECT {_STATE}, crc32 FROM state", (int,) * 5)
        if len(found) != 1:
            raise self.damaged("its state is missing")
        return State(*found[0][1:])

    def segments(self) -> dict[int, Known]:
        """What is known of each segment."""
        rows = self._db.checked("SELECT id, size, seen, base, crc32 FROM segments ORDER BY id", (int,) * 4)
        return {number: Known(size, seen, bool(base)) for number, size, seen, base in rows}

    def know(self, segments: Mapping[int, Known]) -> None:
        """Keep what is known of segments."""
        rows = [summed((number, known.size, known.seen, int(known.base))) for number, known in segments.items()]
        self._db.execute("INSERT OR REPLACE INTO segments VALUES (?, ?, ?, ?, ?)", rows)

    def finish(self, write: int, segment: int, size: int) -> None:
        """Note a write that was taken in, and where it ends."""
        self._note(write=write)
        self.know({segment: Known(size, size, base=False)})

    def put(self, rows: Iterable[Row]) -> None:
        new = [row.values() for row in {row.key: row for row in rows}.values()]
        self._forget([values[0] for values in new])
        self._db.execute("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", new)
        self._count(len(new), (values[-1] for values in new))
        self._db.execute("DELETE FROM removed WHERE position = ?", [(values[1],) for values in new])

    def remove(self, keys: Iterable[str]) -> None:
        """Delete rows; their positions count as used, until a compaction."""
        keys = list(keys)
        one = [(key,) for key in keys]
        self._db.execute("INSERT OR IGNORE INTO removed SELECT position FROM entries WHERE key = ?", one)
        self._forget(keys)
        self._db.execute("DELETE FROM entries WHERE key = ?", one)

    def put_features(self, name: str, segment: int, offset: int) -> None:
        self._db.execute("INSERT INTO features VALUES (?, ?, ?, ?)", [summed((name, segment, offset))])
        self._note(features=self._now().features + 1)

    def clear(self) -> None:
        """Empty the tables but the settings, in a transaction that is ``fresh``."""
        for table in ("entries", "segments", "features", "removed"):
            self._db.all(f"DELETE FROM {table}")

    def fill(
        self,
        write: int,
        rows: Iterable[Row],
        segments: Mapping[int, Known],
        features: Sequence[tuple[str, int, int]],
        removed: Iterable[int] = (),
    ) -> None:
        """Put what all writes up to one add up to into empty tables."""
        self.put(rows)
        self.know(segments)
        self._db.execute("INSERT INTO features VALUES (?, ?, ?, ?)", map(summed, features))
        self._db.execute("INSERT INTO removed VALUES (?)", [(position,) for position in set(removed)])
        self._note(write=write, features=len(features))

    def get(self, key: str) -> Row | None:
        return next(iter(self.find([key])), None)

    def find(self, keys: Sequence[str]) -> list[Row]:
        """The rows of those keys that are here."""
        found: list[Row] = []
        for part, marks in _parts(keys):
            found += self._rows(f"SELECT {_ROW}, crc32 FROM entries WHERE key IN ({marks})", part)
        if len(found) < len(set(keys)):
            self._check_complete()  # or one was just not found
        return found

    def rows(self) -> list[Row]:
        """All rows, in order."""
        self._check_complete()
        return self._rows(f"SELECT {_ROW}, crc32 FROM entries ORDER BY position, key", ())

    def keys(self, limit: int | None) -> list[str]:
        self._check_complete()
        sql = "SELECT key FROM entries ORDER BY position, key LIMIT ?"
        return [key for (key,) in self._db.typed(sql, (str,), (-1 if limit is None else limit,))]

    def next_position(self) -> int:
        self._check_complete()
        return int(self._db.all("SELECT coalesce(max(position) + 1, 0) FROM entries")[0][0])

    def used_positions(self, start: int, stop: int) -> set[int]:
        """Positions from ``start`` to ``stop`` that have an entry, or had one since the last compaction."""
        sql = " UNION ".join(
            f"SELECT position FROM {table} WHERE position >= ? AND position < ?" for table in ("entries", "removed")
        )
        return {position for (position,) in self._db.typed(sql, (int,), (start, stop, start, stop))}

    def removed(self) -> list[int]:
        """The positions of removed entries, in order."""
        return [position for (position,) in self._db.typed("SELECT position FROM removed ORDER BY position", (int,))]

    def features(self, name: str | None = None) -> list[tuple[str, int, int]]:
        """Name, segment and offset of the feature records, in the order they were written."""
        with self.snapshot():
            sql = "SELECT name, segment, offset, crc32 FROM features ORDER BY rowid"
            found = self._db.checked(sql, (str, int, int))
            if len(found) != self.state().features:
                raise self.damaged("vectors are missing")
        return [row for row in found if name in (None, row[0])]

    def __len__(self) -> int:
        with self.snapshot():
            ((entries,),) = self._db.all("SELECT count(*) FROM entries")
            if entries != self.state().entries:
                raise self.damaged("demonstrations are missing")
        return int(entries)

    def check(self) -> None:
        """Let SQLite check its file, and every row its checksum.

        Raises:
            CorruptArtifactError: the index is damaged.
        """
        problem = self._db.all("PRAGMA integrity_check")[0][0]
        if problem != "ok":
            raise self.damaged(problem)
        self._complete_at = None
        for read in (self.settings, self.segments, self.rows, self.features):
            read()

    def damaged(self, reason: str) -> CorruptArtifactError:
        """The error that says so, and how to repair it."""
        return self._db.damaged(reason)

    def close(self) -> None:
        self._db.close()

    def _now(self) -> State:
        assert self._pending is not None, "only within a transaction"
        return self._pending

    def _note(self, **changes: int) -> None:
        self._pending = replace(self._now(), **changes)

    def _count(self, entries: int, checksums: Iterable[int]) -> None:
        state = self._now()
        self._note(entries=state.entries + entries, digest=reduce(xor, checksums, state.digest))

    def _forget(self, keys: Sequence[str]) -> None:
        """Take rows that will be changed or deleted out of the state."""
        gone: list[int] = []
        for part, marks in _parts(keys):
            gone += [crc for (crc,) in self._db.all(f"SELECT crc32 FROM entries WHERE key IN ({marks})", part)]
        self._count(-len(gone), gone)

    def _check_complete(self) -> None:
        """Refuse an index in which a flipped byte has made rows invisible, or has changed their order.

        All rows are looked at once, and again after another process has changed something.
        """
        with self._db.locked():
            version = self._db.version()
            if self._pending is not None or version == self._complete_at:
                return
            with self.snapshot():
                state = self.state()
                rows = self._db.typed("SELECT position, key, crc32 FROM entries NOT INDEXED", (int, str, int))
                order = self._db.all(
                    "SELECT position, key FROM entries INDEXED BY entries_by_position ORDER BY position, key"
                )
            if len(rows) != state.entries or reduce(xor, (row[2] for row in rows), 0) != state.digest:
                raise self.damaged("demonstrations are missing or altered")
            if sorted(row[:2] for row in rows) != order:
                raise self.damaged("its order is altered")
            self._complete_at = version

    def _rows(self, sql: str, given: Sequence[Any]) -> list[Row]:
        rows = self._db.checked(sql, (str, *(int,) * 5, str, str), given)
        return [
            Row(key, position, segment, offset, size, tokens, origin, self._metadata(metadata))
            for key, position, segment, offset, size, tokens, origin, metadata in rows
        ]

    def _metadata(self, text: str) -> Metadata:
        try:
            found: Metadata = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise self.damaged("metadata that is not JSON") from error
        if not isinstance(found, dict) or not all(isinstance(v, str | int | float) for v in found.values()):
            raise self.damaged("metadata that is not an object of numbers and strings")
        return found


def _parts(keys: Sequence[str]) -> Iterator[tuple[Sequence[str], str]]:
    """Keys in parts that one statement takes, with the question marks that stand for them."""
    for start in range(0, len(keys), _MANY):
        part = keys[start : start + _MANY]
        yield part, ", ".join("?" * len(part))
