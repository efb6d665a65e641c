"""The files of a corpus as numbered records: an index is made when a file is opened, then any record is read directly.

A damaged file gives the records that can still be read; ``Shard.damage`` says why these are not all.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from io import BufferedIOBase
from typing import TYPE_CHECKING, Any, NamedTuple

from aim_sdk.training.corpora.drops import Dropped

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_RECORD = 64 << 20
"""Bytes of the largest record that is read: a line, an element of a list, all files of one sample in a tar."""
MAX_UNPACKED = 64 << 30
"""Bytes that one ``.gz`` or ``.zip`` may unpack to: the temporary file that it goes to must not fill the disk."""
MAX_RATIO = 200
"""How many times its own size one may unpack to, from 64 MiB on: JSON packs 5 to 20 times, a bomb 1,000 times."""
MAX_DIRECTORY = 4 << 20
"""Bytes of the list of files in a ``.zip``, which is read whole: some 40,000 names."""
MAX_TAR_HEADER = 1 << 20
"""Bytes of the long names and extra fields before one file of a tar, which are read whole."""
MAX_ROW_GROUP = 1 << 30
"""Bytes that one row group of a parquet file may have in memory."""


class Shard(ABC):
    """One open file of a corpus."""

    damage: str | None = None
    """Why not all of the file can be read."""

    @abstractmethod
    def __len__(self) -> int:
        """Count its records."""

    @abstractmethod
    def read(self, index: int) -> Any:
        """One record.

        Raises:
            Dropped: it cannot be read.
        """

    def order(self, rng: np.random.Generator) -> NDArray[np.intp]:
        """All indices in an order that is drawn, and that the file is quickly read in."""
        return rng.permutation(len(self))

    @abstractmethod
    def close(self) -> None:
        """Close the file."""


class GroupedShard(Shard):
    """Consecutive records of a file as one: a list, with a `Dropped` instead of what cannot be read."""

    def __init__(self, shard: Shard, size: int) -> None:
        self._shard, self._size = shard, size
        self.damage = shard.damage

    def __len__(self) -> int:
        return -(-len(self._shard) // self._size)

    def read(self, index: int) -> list[Any]:
        first = index * self._size
        return [self._one(place) for place in range(first, min(first + self._size, len(self._shard)))]

    def _one(self, index: int) -> Any:
        try:
            return self._shard.read(index)
        except Dropped as lost:
            return Dropped(lost.reason, "sample")

    def close(self) -> None:
        self._shard.close()


class Span(NamedTuple):
    """Where some bytes are in a file."""

    start: int
    size: int


def read_span(file: BufferedIOBase, span: Span) -> bytes:
    """Read without moving the file's position, which forked processes share.

    Raises:
        Dropped: it is too large, holds no bytes (a size below zero), or cannot be read.
    """
    if span.size < 0:
        raise Dropped("link or device in a tar")
    if span.size > MAX_RECORD:
        raise Dropped(f"record larger than {MAX_RECORD >> 20} MiB")
    try:
        data = os.pread(file.fileno(), span.size, span.start)
    except OSError as error:
        raise Dropped("file unreadable") from error
    if len(data) < span.size:  # cut after the index was made
        raise Dropped("file unreadable")
    return data
