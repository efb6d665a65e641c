"""A bank on disk: records in segments, found by the index.

The order of a write makes it safe: the records are appended and synced, then the index commits where they are. A crash
before the commit leaves bytes behind the committed end of a segment, which the next write cuts off. Any number of
processes read; one writes at a time, under a file lock that ends with its process.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from cachetools import LRUCache
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from torch import Tensor

from aim_sdk.bank import records
from aim_sdk.bank.entries import entry_record, feature_record, opening_record
from aim_sdk.bank.index import Index, Row
from aim_sdk.bank.records import Record
from aim_sdk.bank.segments import SEGMENT_BYTES, Segments
from aim_sdk.bank.store import Listed, Matrix, NewEntry, Store
from aim_sdk.config import Binding
from aim_sdk.errors import (
    ArtifactNotFoundError,
    ArtifactWriteError,
    BankLockedError,
    CorruptArtifactError,
    did_you_mean,
)
from aim_sdk.files import sync_folder
from aim_sdk.types import Demonstration, ImageInput, Metadata, Reading

INDEX, LOCK = "bank.sqlite", "bank.lock"
LOCK_SECONDS = 30.0
"""How long a writer waits for another one."""
_LOADED_BYTES = 256 << 20
"""Fused tokens that stay in memory once they are loaded."""

T = TypeVar("T")


class DiskStore(Store):
    """Entries in a folder.

    Args:
        path: a bank's folder; with ``binding``, one that is empty or not there yet becomes a bank.
        binding: what a new bank's fused tokens depend on.
        keep_readings, keep_images: what a new bank keeps beside the fused tokens.

    Raises:
        ArtifactNotFoundError: no bank is there, and no binding makes one.
        CorruptArtifactError: the index is damaged or of a newer version.
        ArtifactWriteError: a new bank cannot be written.
    """

    path: Path

    def __init__(
        self, path: Path, binding: Binding | None = None, *, keep_readings: bool = False, keep_images: bool = False
    ) -> None:
        self.path = path
        self._prepare_folder(may_create=binding is not None)
        self._writable = os.access(path, os.W_OK)
        self._file_lock = FileLock(path / LOCK, timeout=LOCK_SECONDS)
        self._lock = threading.RLock()
        self._changes = 0
        self._listing: tuple[tuple[int, int], list[Listed]] | None = None
        self._loaded: LRUCache[str, Tensor] = LRUCache(_LOADED_BYTES, getsizeof=lambda tensor: tensor.nbytes)
        self._segments = Segments(path)
        self._index = Index(path / INDEX, writable=self._writable)
        if self._index.is_new:
            self._create(binding, keep_readings, keep_images)
        settings = self._index.settings()
        self.binding = Binding.model_validate_json(settings["binding"])
        self.keep_readings, self.keep_images = settings["keep_readings"] == "1", settings["keep_images"] == "1"

    @property
    def index(self) -> Index:
        return self._index

    @property
    def segments(self) -> Segments:
        return self._segments

    def add(
        self, entries: Sequence[NewEntry], *, remove: Sequence[str] = (), features: Mapping[str, Matrix] | None = None
    ) -> None:
        made = [entry_record(entry, keep_reading=self.keep_readings, keep_image=self.keep_images) for entry in entries]
        vectors = {
            name: feature_record(name, [e.key for e in entries], rows) for name, rows in (features or {}).items()
        }
        self.put(made, remove=remove, features=vectors)

    def put(
        self, made: Sequence[tuple[Row, bytes]], *, remove: Sequence[str] = (), features: Mapping[str, bytes]
    ) -> None:
        """Keep records whose keys are not here yet; where they will be is filled into their rows."""
        with self.writing():
            held = self.held([row.key for row, _ in made])
            new = {row.key: (row, data) for row, data in made if row.key not in held}
            gone = [row.key for row in self._index.find(list(remove))]
            kept = features if new else {}
            data = [*(records.encode({"remove": key}) for key in gone), *(d for _, d in new.values()), *kept.values()]
            if not data:
                return
            segment, start = self._append(data)
            places = iter(np.cumsum([start, *map(len, data)]).tolist()[len(gone) :])
            with self._committing(segment, start + sum(map(len, data))):
                self._index.remove(gone)
                self._index.put(replace(row, segment=segment, offset=next(places)) for row, _ in new.values())
                for name in kept:
                    self._index.put_features(name, segment, next(places))
            for key in gone:
                self._loaded.pop(key, None)

    def tag(self, metadata: Mapping[str, Metadata]) -> None:
        with self.writing():
            rows = self._index.find(list(metadata))
            data = b"".join(records.encode({"tag": row.key, "metadata": dict(metadata[row.key])}) for row in rows)
            segment, start = self._append([data])
            with self._committing(segment, start + len(data)):
                self._index.put(replace(row, metadata=dict(metadata[row.key])) for row in rows)

    def held(self, keys: Iterable[str]) -> dict[str, Metadata]:
        return {row.key: row.metadata for row in self._index.find(list(keys))}

    def ordered_keys(self, limit: int | None = None) -> list[str]:
        return self._index.keys(limit)

    def listed(self) -> Sequence[Listed]:
        with self._lock:
            version = (self._index.version(), self._changes)
            if self._listing is None or self._listing[0] != version:
                self._listing = version, [row.listed() for row in self._index.rows()]
            return self._listing[1]

    def position(self, key: str) -> int:
        return self._found(key).position

    def next_position(self) -> int:
        return self._index.next_position()

    def demonstration(self, key: str) -> Demonstration:
        def read(row: Row) -> Demonstration:
            record = self.record(row)
            image: ImageInput = record.header["image"]
            if "image" in record.header["parts"]:
                image = self._part(row, record, "image").numpy().tobytes()
            return Demonstration(image, record.header["text"], record.header["answer"], row.metadata)

        return self._read(key, read)

    def digest(self, key: str) -> str:
        return str(self._read(key, lambda row: self.record(row).header["digest"]))

    def fused(self, key: str) -> Tensor:
        with self._lock:
            if key in self._loaded:
                return self._loaded[key]
        tensor = self._read(key, lambda row: self._part(row, self.record(row), "fused"))
        with self._lock:
            if tensor.nbytes <= self._loaded.maxsize:
                self._loaded[key] = tensor
        return tensor

    def reading(self, key: str) -> Reading | None:
        def read(row: Row) -> Reading | None:
            record = self.record(row)
            if "hidden" not in record.header["parts"]:
                return None
            hidden, ids = (self._part(row, record, name) for name in ("hidden", "token_ids"))
            places = record.header["image_position"], record.header["answer_start"]
            return Reading(ids, hidden, hidden[:, :0], *places)

        return self._read(key, read)

    def add_features(self, name: str, keys: Sequence[str], vectors: Matrix) -> None:
        if not self._writable:
            return  # a reader of a read-only folder computes them again
        data = feature_record(name, keys, vectors)
        with self.writing():
            segment, start = self._append([data])
            with self._index.transaction():  # the entries are as they were: nothing that was read of them is stale
                self._index.set_size(segment, start + len(data))
                self._index.put_features(name, segment, start)

    def features(self, name: str) -> dict[str, NDArray[np.float32]]:
        found: dict[str, NDArray[np.float32]] = {}
        for _, segment, offset in self._index.features(name):
            keys, vectors = self.feature(segment, offset)
            found.update(zip(keys, vectors, strict=True))
        return found

    def feature(self, segment: int, offset: int) -> tuple[list[str], Matrix]:
        """The keys and vectors of one feature record."""
        source, where = self._segments.source(segment), str(self._segments.path(segment))
        record = records.read_record(source, offset, where)
        return record.header["keys"], records.read_part(source, record, "vectors", where).numpy()

    def record(self, row: Row) -> Record:
        """The record of an entry.

        Raises:
            CorruptArtifactError: it is damaged, or another entry's.
        """
        where = str(self._segments.path(row.segment))
        record = records.read_record(self._segments.source(row.segment), row.offset, where)
        if record.header.get("key") != row.key:
            raise CorruptArtifactError(f"{where}: the record at byte {row.offset} is not that of {row.key}.")
        return record

    def __len__(self) -> int:
        return self._index.totals()[0]

    def close(self) -> None:
        self._index.close()
        self._segments.forget()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the writer's lock.

        Raises:
            BankLockedError: another process holds it for too long.
            ArtifactWriteError: the folder is read-only.
        """
        with self._lock:
            if not self._writable:
                raise ArtifactWriteError(
                    f"{self.path}: this bank's folder is read-only; nothing can be added or changed."
                )
            try:
                self._file_lock.acquire()
            except Timeout as error:
                raise BankLockedError(
                    f"{self.path}: another process has been writing to this bank for {LOCK_SECONDS:.0f} seconds. "
                    "Try again when it has finished; reading goes on meanwhile."
                ) from error
            except OSError as error:
                raise ArtifactWriteError(f"{self.path / LOCK}: cannot be written ({error.strerror}).") from error
            try:
                yield
            finally:
                self._file_lock.release()

    def opening(self) -> bytes:
        """The record that begins every segment: what a lost index is made anew with."""
        return opening_record(self.binding, self.keep_readings, self.keep_images)

    def changed(self) -> None:
        """Forget what was read of the index."""
        self._changes += 1

    def _prepare_folder(self, *, may_create: bool) -> None:
        path = self.path
        if path.is_dir() and (path / INDEX).exists():
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
            what = "this folder holds something else" if path.is_dir() and may_create else "no bank is there"
            near = [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else []
            hint = "" if path.exists() else did_you_mean(path.name, near)
            raise ArtifactNotFoundError(f"{path}: {what}.{hint} `aim-icl bank add` makes one.")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ArtifactWriteError(f"{path}: cannot be made ({error.strerror}).") from error

    def _create(self, binding: Binding | None, keep_readings: bool, keep_images: bool) -> None:
        with self.writing():
            if self._index.settings_exist():
                return  # another process was first
            if self._segments.present():
                raise self._index.damaged("it is empty")
            if binding is None:
                raise ArtifactNotFoundError(f"{self.path}: no bank is there. `aim-icl bank add` makes one.")
            self._index.create(
                {
                    "binding": binding.model_dump_json(),
                    "keep_readings": str(int(keep_readings)),
                    "keep_images": str(int(keep_images)),
                }
            )
            sync_folder(self.path)

    def _append(self, data: Sequence[bytes]) -> tuple[int, int]:
        """Append records and sync them; return the segment and where they begin in it."""
        sizes = self._index.sizes()
        self._segments.remove_orphans(sizes)
        segment = max(sizes, default=1)
        if sizes.get(segment, 0) >= SEGMENT_BYTES:
            segment += 1
        committed = sizes.get(segment, 0)
        opening = [] if committed else [self.opening()]
        self._segments.append(segment, committed, [*opening, *data])
        return segment, committed + sum(map(len, opening))

    @contextmanager
    def _committing(self, segment: int, size: int) -> Iterator[None]:
        with self._index.transaction():
            self._index.set_size(segment, size)
            yield
        self.changed()

    def _part(self, row: Row, record: Record, name: str) -> Tensor:
        where = str(self._segments.path(row.segment))
        return records.read_part(self._segments.source(row.segment), record, name, where)

    def _found(self, key: str) -> Row:
        row = self._index.get(key)
        if row is None:
            raise KeyError(key)
        return row

    def _read(self, key: str, read: Callable[[Row], T]) -> T:
        """Read an entry; a compaction in another process may move it once meanwhile."""
        row = self._found(key)
        try:
            return read(row)
        except CorruptArtifactError:
            again = self._found(key)
            if (again.segment, again.offset) == (row.segment, row.offset):
                raise
            return read(again)
