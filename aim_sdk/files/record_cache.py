"""What is expensive to compute, on disk by key: a file of records for each process that wrote.

Every process reads the files of all. It is a cache: a torn end is cut off, a file of another scope is started over, on
a full disk nothing more is kept, and deleting the folder loses nothing.

    {stem}-{rank}.aim = record {"{stem}_of": scope} | record {"key": ..., the header's fields}, tensors | ...
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from aim_sdk.errors import CorruptArtifactError
from aim_sdk.files.records import ByteSource, Record, encode, read_part, read_record


class RecordCache:
    """Headers with tensors, by key; thread-safe.

    Args:
        folder: where the files are; created if missing.
        stem: how their names begin.
        scope: what all records depend on, besides their keys. Files of another scope are not read.
        limit: bytes that this process's file may grow to.
        rank: which of the processes.
    """

    def __init__(self, folder: Path, stem: str, scope: str, *, limit: float, rank: int = 0) -> None:
        self._first, self._limit = {f"{stem}_of": scope}, limit
        self._places: dict[str, tuple[int, Record]] = {}
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        own = folder / f"{stem}-{rank:03}.aim"
        others = sorted(set(folder.glob(f"{stem}-*.aim")) - {own})
        self._handles = {path: os.open(path, os.O_RDONLY) for path in others}
        for handle in self._handles.values():
            self._index(handle)
        self._own = os.open(own, os.O_RDWR | os.O_CREAT, 0o644)
        self._handles[own] = self._own
        self._size = self._index(self._own)
        os.ftruncate(self._own, self._size)
        if not self._size:
            self._append(encode(self._first))

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: object) -> bool:
        return key in self._places

    def get(self, key: str, parts: Sequence[str]) -> tuple[dict[str, Any], list[Tensor]] | None:
        """A record's header and the tensors that ``parts`` names, on the CPU; None if there is none, or a damaged one.

        Raises:
            KeyError: the record has no such part.
        """
        if (place := self._places.get(key)) is None:
            return None
        handle, record = place
        try:
            return record.header, [read_part(_source(handle), record, name, key) for name in parts]
        except (CorruptArtifactError, OSError):  # it is computed again
            with self._lock:
                self._places.pop(key, None)
            return None

    def add(self, key: str, header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Keep a record under a new key, while there is room."""
        data = encode({"key": key, **header}, tensors)
        with self._lock:
            if key in self._places or self._size + len(data) > self._limit:
                return
            start = self._size
            if self._append(data):
                self._places[key] = self._own, read_record(_source(self._own), start, key)

    def close(self) -> None:
        """Close the files; nothing more is kept."""
        with self._lock:
            self._limit = 0  # or a late `add` would write where the handle's number is used again
            for handle in self._handles.values():
                os.close(handle)
            self._handles.clear()
            self._places.clear()

    def _index(self, handle: int) -> int:
        """Note where a file's records are; return where the whole ones end."""
        records = _records(handle)
        first = next(records, None)
        if first is None or not self._first.items() <= first.header.items():
            return 0
        end = first.end
        for record in records:
            self._places[record.header["key"]] = handle, record
            end = record.end
        return end

    def _append(self, data: bytes) -> bool:
        """Whether it was written; if not, the disk is full, and nothing more is kept."""
        try:
            whole = os.pwrite(self._own, data, self._size) == len(data)
        except OSError:
            whole = False
        if whole:
            self._size += len(data)
        else:
            self._limit = 0
        return whole


def _records(handle: int) -> Iterator[Record]:
    offset, size = 0, os.fstat(handle).st_size
    while offset < size:
        try:
            record = read_record(_source(handle), offset, "cache")
        except CorruptArtifactError:
            return
        if record.end > size:
            return
        yield record
        offset = record.end


def _source(handle: int) -> ByteSource:
    def read(offset: int, size: int) -> bytes:
        return os.pread(handle, size, offset)

    return read
