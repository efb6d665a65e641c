"""Rows of a parquet file by number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from aim_sdk.support.dependencies import imported
from aim_sdk.training.corpora import shards
from aim_sdk.training.corpora.drops import Dropped
from aim_sdk.training.corpora.shards import Shard

_ROWS = 1024
"""Rows that are read before their size is checked."""
_TOO_LARGE = f"parquet row group larger than {shards.MAX_ROW_GROUP >> 20} MiB"
_HELD = 3
"""Row groups kept in memory: the streams that one process reads in turn are close together."""


class ParquetShard(Shard):
    """Some columns of a parquet file. A row group is read whole: a few are kept, and orders go group by group.

    Raises:
        OSError: the file cannot be opened.
        MissingDependencyError: pyarrow is not installed.
    """

    def __init__(self, path: Path, columns: list[str]) -> None:
        pyarrow, parquet = imported("pyarrow"), imported("pyarrow.parquet")
        self._broken, self._columns = (pyarrow.ArrowException, OSError, ValueError, OverflowError), columns
        self._starts, self._table = np.zeros(1, np.intp), pyarrow.Table
        self._held: LRUCache[int, Any] = LRUCache(_HELD)
        self._handle = path.open("rb")
        try:
            self._file = parquet.ParquetFile(self._handle)
        except self._broken:
            self.damage = "parquet truncated or broken"
            return
        if not set(columns) <= set(self._file.schema_arrow.names):
            self.damage = "parquet of other columns"
            return
        groups = range(self._file.num_row_groups)
        self._starts = np.cumsum([0, *(self._file.metadata.row_group(group).num_rows for group in groups)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, index: int) -> dict[str, Any]:
        group = int(np.searchsorted(self._starts, index, side="right")) - 1
        if (rows := self._held.get(group)) is None:
            rows = self._held[group] = self._group(group)
        try:
            row: dict[str, Any] = rows.slice(index - self._starts[group], 1).to_pylist()[0]
        except (*self._broken, IndexError) as error:  # a text that is not UTF-8; fewer rows than are promised
            raise Dropped("malformed document") from error
        return row

    def _group(self, group: int) -> Any:
        """A row group, read piece by piece, because the sizes that the file states cannot be trusted.

        Its columns' metadata must not be read either: if they are damaged, pyarrow ends the process.
        """
        pieces, size = [], 0
        try:
            # One thread: a worker process that was forked has none of the pool's.
            options = {"row_groups": [group], "columns": self._columns, "use_threads": False}
            for piece in self._file.iter_batches(_ROWS, **options):
                pieces.append(piece)
                size += piece.nbytes
                if size > shards.MAX_ROW_GROUP:
                    raise Dropped(_TOO_LARGE)
            return self._table.from_batches(pieces)
        except self._broken as error:
            raise Dropped("parquet row group broken") from error

    def order(self, rng: np.random.Generator) -> NDArray[np.intp]:
        groups = [
            rng.permutation(np.arange(first, last)) for first, last in zip(self._starts, self._starts[1:], strict=False)
        ]
        return np.concatenate([np.empty(0, np.intp), *(groups[place] for place in rng.permutation(len(groups)))])

    def close(self) -> None:
        self._handle.close()


def parquet_columns(path: Path) -> set[str]:
    """The names of a file's columns; none if it is not a parquet file.

    Raises:
        MissingDependencyError: pyarrow is not installed.
    """
    pyarrow, parquet = imported("pyarrow"), imported("pyarrow.parquet")
    try:
        return set(parquet.read_schema(path).names)
    except (pyarrow.ArrowException, OSError, ValueError):
        return set()
