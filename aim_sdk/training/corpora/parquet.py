"""Rows of a parquet file by number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aim_sdk.dependencies import imported
from aim_sdk.training.corpora.drops import Dropped
from aim_sdk.training.corpora.shards import Shard

_HELD = 3
"""Row groups in memory: streams that one process reads in turns are near each other, not at one place."""


class ParquetShard(Shard):
    """Some columns of a parquet file. A row group is read whole: a few are kept, and orders go group by group.

    Raises:
        OSError: the file cannot be opened.
        MissingDependencyError: pyarrow is not installed.
    """

    def __init__(self, path: Path, columns: list[str]) -> None:
        pyarrow, parquet = imported("pyarrow"), imported("pyarrow.parquet")
        self._broken, self._columns = (pyarrow.ArrowException, OSError), columns
        self._starts = np.zeros(1, np.intp)
        self._held: dict[int, Any] = {}
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
        if group not in self._held:
            try:
                # One thread: a worker process that was forked has none of the pool's.
                self._held[group] = self._file.read_row_group(group, columns=self._columns, use_threads=False)
            except self._broken as error:
                raise Dropped("parquet row group broken") from error
            if len(self._held) > _HELD:
                del self._held[next(iter(self._held))]
        row: dict[str, Any] = self._held[group].slice(index - self._starts[group], 1).to_pylist()[0]
        return row

    def order(self, rng: np.random.Generator) -> NDArray[np.intp]:
        groups = [
            rng.permutation(np.arange(first, last)) for first, last in zip(self._starts, self._starts[1:], strict=False)
        ]
        return np.concatenate([np.empty(0, np.intp), *(groups[place] for place in rng.permutation(len(groups)))])

    def close(self) -> None:
        self._handle.close()


def parquet_columns(path: Path) -> set[str]:
    """The names of a file's columns; none where it is no parquet file.

    Raises:
        MissingDependencyError: pyarrow is not installed.
    """
    pyarrow, parquet = imported("pyarrow"), imported("pyarrow.parquet")
    try:
        return set(parquet.read_schema(path).names)
    except (pyarrow.ArrowException, OSError):
        return set()
