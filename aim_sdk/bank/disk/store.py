"""A bank on disk: the entries of a log, by key."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from aim_sdk.bank.disk.entries import FORMAT, Opening, entry_record, feature_record
from aim_sdk.bank.disk.log import Log
from aim_sdk.bank.disk.reading import entry_at, part_at, vectors_at
from aim_sdk.bank.disk.rows import Row
from aim_sdk.bank.store import Listed, NewEntry, Store
from aim_sdk.config import Binding
from aim_sdk.files import records
from aim_sdk.files.images import KeptImage
from aim_sdk.types import Demonstration, FusedTokens, ImageInput, KeptReading, Matrix, Metadata

_LOADED_BYTES = 256 << 20
"""Fused tokens that stay in memory once they are loaded."""

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
        new = None
        if binding is not None:
            new = Opening(
                bank=FORMAT,
                id=uuid.uuid4().hex,
                binding=binding,
                keep_readings=keep_readings,
                keep_images=keep_images,
            )
        self.log = Log(path, new)
        self.path = self.log.path
        self._listing: tuple[tuple[int, tuple[int, int], int], list[Listed]] | None = None
        self._loaded: LRUCache[str, FusedTokens] = LRUCache(
            _LOADED_BYTES, getsizeof=lambda fused: fused.embeddings.nbytes
        )
        opening = self.log.opening
        self.binding = opening.binding
        self.keep_readings, self.keep_images = opening.keep_readings, opening.keep_images

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
        with self.log.writing() as index:
            held = self.held([row.key for row, _ in made])
            new = {row.key: (row, data) for row, data in made if row.key not in held}
            gone = [row.key for row in index.find(list(remove))]
            kept = features if new else {}
            data = [*(records.encode({"remove": key}) for key in gone), *(d for _, d in new.values()), *kept.values()]
            if not data:
                return
            with self.log.written(index, data) as (segment, start):
                places = iter(np.cumsum([start, *map(len, data)]).tolist()[len(gone) :])
                index.remove(gone)
                index.put(replace(row, segment=segment, offset=next(places)) for row, _ in new.values())
                for name in kept:
                    index.put_features(name, segment, next(places))
            self.log.changes += 1
            for key in gone:
                self._loaded.pop(key, None)

    def tag(self, metadata: Mapping[str, Metadata]) -> None:
        with self.log.writing() as index:
            rows = index.find(list(metadata))
            data = [records.encode({"tag": row.key, "metadata": dict(metadata[row.key])}) for row in rows]
            if data:
                with self.log.written(index, data):
                    index.put(replace(row, metadata=dict(metadata[row.key])) for row in rows)
                self.log.changes += 1

    def held(self, keys: Iterable[str]) -> dict[str, Metadata]:
        return {row.key: row.metadata for row in self.log.index.find(list(keys))}

    def ordered_keys(self, limit: int | None = None) -> list[str]:
        return self.log.index.keys(limit)

    def listed(self) -> Sequence[Listed]:
        with self.log.lock:
            index = self.log.index
            version = (id(index), index.version(), self.log.changes)
            if self._listing is None or self._listing[0] != version:
                self._listing = version, [row.listed() for row in index.rows()]
            return self._listing[1]

    def positions(self, keys: Iterable[str]) -> dict[str, int]:
        return {row.key: row.position for row in self.log.index.find(list(keys))}

    def used_positions(self, start: int, stop: int) -> set[int]:
        return self.log.index.used_positions(start, stop)

    def next_position(self) -> int:
        return self.log.index.next_position()

    def demonstration(self, key: str) -> Demonstration:
        def read(row: Row) -> Demonstration:
            record = entry_at(self.log.segments, row)
            image: ImageInput = record.header["image"]
            if "image" in record.header["parts"]:
                file = part_at(self.log.segments, row, record, "image").numpy().tobytes()
                image = KeptImage(file, record.header["digest"])
            return Demonstration(image, record.header["text"], record.header["answer"], row.metadata)

        return self._read(key, read)

    def digest(self, key: str) -> str:
        return str(self._read(key, lambda row: entry_at(self.log.segments, row).header["digest"]))

    def fused(self, key: str) -> FusedTokens:
        with self.log.lock:
            if key in self._loaded:
                return self._loaded[key]

        def read(row: Row) -> FusedTokens:
            record = entry_at(self.log.segments, row)
            has_ids = "token_ids" in record.header["parts"]  # banks of older versions keep none
            ids = part_at(self.log.segments, row, record, "token_ids") if has_ids else None
            return FusedTokens(part_at(self.log.segments, row, record, "fused"), token_ids=ids)

        found = self._read(key, read)
        with self.log.lock:
            if found.embeddings.nbytes <= self._loaded.maxsize:
                self._loaded[key] = found
        return found

    def reading(self, key: str) -> KeptReading | None:
        def read(row: Row) -> KeptReading | None:
            record = entry_at(self.log.segments, row)
            if "hidden" not in record.header["parts"]:
                return None
            hidden, ids = (part_at(self.log.segments, row, record, name) for name in ("hidden", "token_ids"))
            places = record.header["image_position"], record.header["answer_start"]
            return KeptReading(ids, hidden, *places)

        return self._read(key, read)

    def add_features(self, name: str, keys: Sequence[str], vectors: Matrix) -> None:
        if not self.log.folder.writable:
            return  # a reader of a read-only folder computes them again
        data = feature_record(name, keys, vectors)
        # The entries are unchanged, so nothing that was read from them is stale.
        with self.log.writing() as index, self.log.written(index, [data]) as (segment, start):
            index.put_features(name, segment, start)

    def features(self, name: str) -> dict[str, NDArray[np.float32]]:
        return self.log.settled(lambda: vectors_at(self.log.segments, self.log.index.features(name)))

    def __len__(self) -> int:
        return len(self.log.index)

    def close(self) -> None:
        self.log.close()

    def _found(self, key: str) -> Row:
        row = self.log.index.get(key)
        if row is None:
            raise KeyError(key)
        return row

    def _read(self, key: str, read: Callable[[Row], T]) -> T:
        return self.log.settled(lambda: read(self._found(key)))
