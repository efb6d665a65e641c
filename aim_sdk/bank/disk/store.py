"""A bank on disk: records in segments, found by the index.

The order of a write makes it safe: its records are appended under the next number and synced, and that is what makes
them durable; then the index takes them in. What a crash leaves is either a whole write, which the index takes in later,
or bytes that are none, which nobody counts. Any number of processes read; one writes at a time.
"""

from __future__ import annotations

import os
import threading
import uuid
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray
from torch import Tensor

from aim_sdk.bank import records
from aim_sdk.bank.disk import recovery, segments
from aim_sdk.bank.disk.entries import FORMAT, Opening, entry_of, entry_record, feature_record, vectors_of
from aim_sdk.bank.disk.folder import INDEX, Folder, prepare
from aim_sdk.bank.disk.index import Index
from aim_sdk.bank.disk.rows import Row
from aim_sdk.bank.disk.segments import Segments
from aim_sdk.bank.disk.writes import framed
from aim_sdk.bank.records import Record
from aim_sdk.bank.store import Listed, Matrix, NewEntry, Store
from aim_sdk.config import Binding
from aim_sdk.errors import ArtifactError, ArtifactNotFoundError, BankLockedError, CorruptArtifactError
from aim_sdk.files import sync_folder
from aim_sdk.types import Demonstration, ImageInput, Metadata, Reading

_LOADED_BYTES = 256 << 20
"""Fused tokens that stay in memory once they are loaded."""
_BUSY_SECONDS = 1.0
"""How long opening waits for a writer, who takes in himself what is missing in the index."""

T = TypeVar("T")


class DiskStore(Store):
    """Entries in a folder.

    Args:
        path: a bank's folder; with ``binding``, one that is empty or not there yet becomes a bank.
        binding: what a new bank's fused tokens depend on.
        keep_readings, keep_images: what a new bank keeps besides the fused tokens.

    Raises:
        ArtifactNotFoundError: no bank is there, and no binding makes one.
        CorruptArtifactError: the index is damaged, older than the segments, or of another version.
        ArtifactWriteError: a new bank cannot be written.
    """

    path: Path

    def __init__(
        self, path: Path, binding: Binding | None = None, *, keep_readings: bool = False, keep_images: bool = False
    ) -> None:
        self.path = Path(os.path.abspath(path))
        prepare(self.path, may_create=binding is not None)
        self.folder = Folder(self.path)
        self._lock = threading.RLock()
        self._changes = 0
        self._listing: tuple[tuple[int, int, int], list[Listed]] | None = None
        self._loaded: LRUCache[str, Tensor] = LRUCache(_LOADED_BYTES, getsizeof=lambda tensor: tensor.nbytes)
        self.segments = Segments(self.path)
        self._index: Index | None = Index(self.path / INDEX, writable=self.folder.writable)
        try:
            if self._index.is_new:
                self._create(self._index, binding, keep_readings, keep_images)
            self.opening = _opening(self._index)
            self._take_in(self._index)
        except ArtifactError:
            self.close()
            raise
        self.binding = self.opening.binding
        self.keep_readings, self.keep_images = self.opening.keep_readings, self.opening.keep_images
        _OPEN.add(self)

    @property
    def index(self) -> Index:
        """The index; opened again where another file has taken its place, and in a forked process."""
        index = self._index
        if index is not None and not index.stale:
            return index
        with self._lock:
            self.folder.check()
            if not (self.path / INDEX).is_file():
                raise CorruptArtifactError(
                    f"{self.path}: the index ({INDEX}) is missing. "
                    f"Next: `aim-icl bank verify {self.path} --rebuild-index`."
                )
            if index is not None:
                index.close()
            self._index = index = Index(self.path / INDEX, writable=self.folder.writable)
            self._take_in(index)
        return index

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
        with self.writing() as index:
            held = self.held([row.key for row, _ in made])
            new = {row.key: (row, data) for row, data in made if row.key not in held}
            gone = [row.key for row in index.find(list(remove))]
            kept = features if new else {}
            data = [*(records.encode({"remove": key}) for key in gone), *(d for _, d in new.values()), *kept.values()]
            if not data:
                return
            with self._written(index, data) as (segment, start):
                places = iter(np.cumsum([start, *map(len, data)]).tolist()[len(gone) :])
                index.remove(gone)
                index.put(replace(row, segment=segment, offset=next(places)) for row, _ in new.values())
                for name in kept:
                    index.put_features(name, segment, next(places))
            self._changes += 1
            for key in gone:
                self._loaded.pop(key, None)

    def tag(self, metadata: Mapping[str, Metadata]) -> None:
        with self.writing() as index:
            rows = index.find(list(metadata))
            data = [records.encode({"tag": row.key, "metadata": dict(metadata[row.key])}) for row in rows]
            if data:
                with self._written(index, data):
                    index.put(replace(row, metadata=dict(metadata[row.key])) for row in rows)
                self._changes += 1

    def held(self, keys: Iterable[str]) -> dict[str, Metadata]:
        return {row.key: row.metadata for row in self.index.find(list(keys))}

    def ordered_keys(self, limit: int | None = None) -> list[str]:
        return self.index.keys(limit)

    def listed(self) -> Sequence[Listed]:
        with self._lock:
            index = self.index
            version = (id(index), index.version(), self._changes)
            if self._listing is None or self._listing[0] != version:
                self._listing = version, [row.listed() for row in index.rows()]
            return self._listing[1]

    def positions(self, keys: Iterable[str]) -> dict[str, int]:
        return {row.key: row.position for row in self.index.find(list(keys))}

    def used_positions(self, start: int, stop: int) -> set[int]:
        return self.index.used_positions(start, stop)

    def next_position(self) -> int:
        return self.index.next_position()

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
        if not self.folder.writable:
            return  # a reader of a read-only folder computes them again
        data = feature_record(name, keys, vectors)
        # The entries are as they were: nothing that was read of them is stale.
        with self.writing() as index, self._written(index, [data]) as (segment, start):
            index.put_features(name, segment, start)

    def features(self, name: str) -> dict[str, NDArray[np.float32]]:
        found: dict[str, NDArray[np.float32]] = {}
        for _, segment, offset in self.index.features(name):
            keys, vectors = self.feature(segment, offset)
            found.update(zip(keys, vectors, strict=True))
        return found

    def feature(self, segment: int, offset: int) -> tuple[list[str], Matrix]:
        """The keys and vectors of one feature record."""
        source, where = self.segments.source(segment), str(self.segments.path(segment))
        record = records.read_record(source, offset, where)
        _, keys = vectors_of(record, where)
        return keys, records.read_part(source, record, "vectors", where).numpy()

    def record(self, row: Row) -> Record:
        """The record of an entry.

        Raises:
            CorruptArtifactError: it is damaged, or another entry's.
        """
        where = str(self.segments.path(row.segment))
        record = records.read_record(self.segments.source(row.segment), row.offset, where)
        if entry_of(record, where).key != row.key:
            raise CorruptArtifactError(f"{where}: the record at byte {row.offset} is not that of {row.key}.")
        return record

    def __len__(self) -> int:
        return self.index.totals()[0]

    def close(self) -> None:
        _OPEN.discard(self)
        if self._index is not None:
            self._index.close()
        self.segments.forget()

    @contextmanager
    def writing(self) -> Iterator[Index]:
        """Hold the writer's lock, with an index that knows all that the segments hold.

        Raises:
            BankLockedError: another process holds it for too long.
            ArtifactWriteError: the folder is read-only.
            ArtifactNotFoundError: the folder was moved or replaced since it was opened.
            CorruptArtifactError: index and segments do not fit together; nothing is changed.
        """
        with self._lock, self.folder.locked():
            index = self.index
            self._take_in_locked(index)
            if problem := recovery.lost(self.segments, index.segments(), self.segments.present()):
                raise CorruptArtifactError(problem)
            yield index

    def take_in(self) -> None:
        """Let the index know what a crash, or a full disk under the index, has kept from it."""
        self._take_in(self.index)

    def changed(self) -> None:
        """Forget what was read of the index."""
        self._changes += 1

    def after_fork(self) -> None:
        """Open what a forked process must not share with its parent."""
        _OF_PARENTS.append((self._index, self.folder))  # closing them here would end the parent's locks
        self._lock, self._index = threading.RLock(), None
        self.folder, self.segments = self.folder.again(), Segments(self.path)

    def _create(self, index: Index, binding: Binding | None, keep_readings: bool, keep_images: bool) -> None:
        with self._lock, self.folder.locked():
            if not index.is_new:
                return  # another process was first
            if self.segments.present():
                raise index.damaged("it is empty")
            if binding is None:
                raise ArtifactNotFoundError(f"{self.path}: no bank is there. `aim-icl bank add` makes one.")
            new = Opening(
                bank=FORMAT,
                id=uuid.uuid4().hex,
                binding=binding,
                keep_readings=keep_readings,
                keep_images=keep_images,
            )
            index.create(new.settings())
            sync_folder(self.path)

    def _take_in(self, index: Index) -> None:
        """Take in whole writes that the index does not know, as far as nobody else is at it."""
        if not self._tail(index).writes:
            return
        if not self.folder.writable:
            self._take_in_locked(index)  # in the copy
            return
        try:
            with self.folder.locked(_BUSY_SECONDS):
                self._take_in_locked(index)
        except BankLockedError:
            return  # a writer has taken them in before it began

    def _take_in_locked(self, index: Index) -> None:
        found = self._tail(index)
        if not found.seen:
            return
        with index.transaction():
            for write in found.writes:
                where = str(self.segments.path(write.segment))
                for record in records.scan(self.segments.source(write.segment), write.end, where, write.start):
                    if isinstance(record, CorruptArtifactError):
                        raise record
                    recovery.apply(record, write.segment, index, where)
                index.finish(write.number, write.segment, write.end)
            index.know(found.seen)
        self.changed()

    def _tail(self, index: Index) -> recovery.Tail:
        with index.snapshot():
            known, last = index.segments(), index.state().write
        return recovery.tail(self.segments, known, last, self.opening.id)

    @contextmanager
    def _written(self, index: Index, data: Sequence[bytes]) -> Iterator[tuple[int, int]]:
        """Append records as one write and sync them; give their segment and start, and let the index take them in."""
        number = index.state().write + 1
        write = framed(number, data)
        known, present = index.segments(), self.segments.present()
        segment = max((n for n in known if not known[n].base and known[n].size), default=0)
        size = present.get(segment, 0)
        if segment and size < segments.SEGMENT_BYTES and known[segment].size == known[segment].seen == size:
            end = self.segments.append(segment, size, write)
        else:  # also where bytes follow that are no write: they stay as they are
            segment = max([*known, *present], default=0) + 1
            end = self.segments.create(segment, [self.opening.record(), *write])
        with index.transaction():
            yield segment, end - sum(map(len, data))
            index.finish(number, segment, end)

    def _part(self, row: Row, record: Record, name: str) -> Tensor:
        where = str(self.segments.path(row.segment))
        return records.read_part(self.segments.source(row.segment), record, name, where)

    def _found(self, key: str) -> Row:
        row = self.index.get(key)
        if row is None:
            raise KeyError(key)
        return row

    def _read(self, key: str, read: Callable[[Row], T]) -> T:
        """Read an entry; a compaction in another process may move it once meanwhile."""
        row = self._found(key)
        try:
            return read(row)
        except CorruptArtifactError:
            self.folder.check()
            again = self._found(key)
            if (again.segment, again.offset) == (row.segment, row.offset):
                raise
            return read(again)


def _opening(index: Index) -> Opening:
    try:
        return Opening.from_settings(index.settings())
    except (KeyError, ValueError, RecursionError) as error:  # pydantic's error is a ValueError
        raise index.damaged("its settings are not those of a bank") from error


_OPEN: weakref.WeakSet[DiskStore] = weakref.WeakSet()
_OF_PARENTS: list[Any] = []


def _after_fork() -> None:
    for store in list(_OPEN):
        store.after_fork()


os.register_at_fork(after_in_child=_after_fork)
