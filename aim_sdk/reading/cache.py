"""Readings on disk: the backbone is frozen, so a demonstration that was read once is never read again.

A folder holds one file of records (`aim_sdk.files.records`) for each process that wrote; every process reads them
all. It is a cache: a torn end is cut off, a file of another backbone is started over, and deleting the cache loses
nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from aim_sdk.errors import CorruptArtifactError
from aim_sdk.files.records import ByteSource, Record, encode, read_part, read_record
from aim_sdk.reading.encoder import Encoder
from aim_sdk.types import KeptReading


class ReadingCache:
    """Readings by the demonstration's id; thread-safe.

    Args:
        folder: where the files are; created if missing.
        encoder: the backbone, format and layers that the readings are of.
        limit: bytes that this process may write.
        rank: which of the processes.
    """

    def __init__(self, folder: Path, encoder: Encoder, *, limit: float, rank: int = 0) -> None:
        self._encoder, self._limit = encoder, limit
        self._places: dict[str, tuple[int, Record]] = {}
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        own = folder / f"readings-{rank:03}.aim"
        others = sorted(set(folder.glob("readings-*.aim")) - {own})
        self._handles = {path: os.open(path, os.O_RDONLY) for path in others}
        for path, handle in self._handles.items():
            self._index(handle, path)
        self._own = os.open(own, os.O_RDWR | os.O_CREAT, 0o644)
        self._handles[own] = self._own
        self._size = self._index(self._own, own)
        os.ftruncate(self._own, self._size)
        if not self._size:
            self._append(encode({"readings_of": self._scope}))

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: object) -> bool:
        return key in self._places

    def get(self, key: str) -> KeptReading | None:
        """The reading of a demonstration, on the CPU; None if there is none."""
        if (place := self._places.get(key)) is None:
            return None
        handle, record = place
        try:
            hidden, token_ids = (read_part(_source(handle), record, n, "readings") for n in ("hidden", "token_ids"))
        except CorruptArtifactError:  # it is read again
            with self._lock:
                self._places.pop(key, None)
            return None
        header = record.header
        return KeptReading(token_ids, hidden, header["image_position"], header["answer_start"])

    def add(self, key: str, reading: KeptReading) -> None:
        """Keep a reading, while there is room."""
        header = {"key": key, "image_position": reading.image_position, "answer_start": reading.answer_start}
        data = encode(header, {"hidden": reading.hidden.cpu(), "token_ids": reading.token_ids.cpu()})
        with self._lock:
            if key in self._places or self._size + len(data) > self._limit:
                return
            start = self._size
            if self._append(data):
                self._places[key] = self._own, read_record(_source(self._own), start, "readings")

    def close(self) -> None:
        """Close the files; nothing more is kept."""
        with self._lock:
            self._limit = 0  # or a late `add` would write where the handle's number is used again
            for handle in self._handles.values():
                os.close(handle)
            self._handles.clear()
            self._places.clear()

    @property
    def _scope(self) -> str:
        """What readings depend on besides their demonstration."""
        encoder = self._encoder
        identity = encoder.backend.fingerprint.model_dump(exclude={"libraries", "model", "revision", "backend"})
        dtype = str(encoder.backend.dtype)
        parts = [identity, dtype, encoder.prompt_format.model_dump(), list(encoder.projector.layers)]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def _index(self, handle: int, path: Path) -> int:
        """Note where a file's readings are; return where its whole records end."""
        records = _records(handle, path)
        first = next(records, None)
        if first is None or first.header.get("readings_of") != self._scope:
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


def _records(handle: int, path: Path) -> Iterator[Record]:
    offset, size = 0, os.fstat(handle).st_size
    while offset < size:
        try:
            record = read_record(_source(handle), offset, str(path))
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
