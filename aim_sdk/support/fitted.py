"""Tables for the console that stay readable in 80 columns: no cell is cut, none is folded to a few letters per line."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from rich.console import Group
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

from aim_sdk.support.terminal import cell

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType

_GAP: Final = 2
_FOLDED: Final = 36
"""Columns that the last cell of a row needs to be folded into; with fewer, rows are written as records."""


class FittedTable:
    """A table if it fits; otherwise one with its last column folded, several narrower tables, or records.

    Args:
        head: the columns' names.
        rows: their cells, shown as they are; a text of rich keeps its style.
        title: above it.
        keys: columns, from the left, that say what a row is: they come before each part of a table that is split, and
            at the head of each record.
        parts: whether it may be split into tables of some columns each: where columns are alike, as numbers of shots.
    """

    def __init__(
        self,
        head: Sequence[str],
        rows: Iterable[Sequence[object]],
        *,
        title: str = "",
        keys: int = 1,
        parts: bool = False,
    ) -> None:
        self.head, self.title, self.keys, self.parts = tuple(head), title, keys, parts
        self.rows = [
            [item if isinstance(item, Text) else cell(str(item).expandtabs(4)) for item in row] for row in rows
        ]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        if self.title:
            yield cell(self.title, "italic")
        yield from self._fitted(options.max_width)

    def _fitted(self, width: int) -> Iterator[RenderableType]:
        every = list(range(len(self.head)))
        if self._width(every) <= width:
            yield self._table(every)
            return
        if self.parts and (split := self._split(width)):
            for number, columns in enumerate(split):
                if number:
                    yield ""
                yield self._table(columns)
            return
        if self._width(every[:-1]) + _GAP + _FOLDED <= width:
            yield self._table(every)
            return
        for row in self.rows:
            yield self._record(row)

    def _split(self, width: int) -> list[list[int]]:
        """The columns of each part; none if a part is too wide."""
        keys = list(range(self.keys))
        parts: list[list[int]] = []
        for column in range(self.keys, len(self.head)):
            if parts and self._width([*parts[-1], column]) <= width:
                parts[-1].append(column)
            elif self._width([*keys, column]) <= width:
                parts.append([*keys, column])
            else:
                return []
        return parts

    def _width(self, columns: Sequence[int]) -> int:
        widest = [max([cell(self.head[c]).cell_len, *(_widest(row[c]) for row in self.rows)]) for c in columns]
        return sum(widest) + _GAP * max(0, len(columns) - 1)

    def _table(self, columns: Sequence[int]) -> Table:
        heads = [Column(cell(self.head[c]), overflow="fold", no_wrap=c != len(self.head) - 1) for c in columns]
        table = Table(*heads, box=None, header_style="bold", pad_edge=False, padding=(0, _GAP, 0, 0))
        for row in self.rows:
            table.add_row(*(row[c] for c in columns))
        return table

    def _record(self, row: Sequence[Text]) -> Group:
        named = [(name, item) for name, item in zip(self.head, row, strict=True) if item.plain]
        keys = [item for _, item in zip(self.head[: self.keys], row, strict=False) if item.plain]
        rest = named[len(keys) :]
        table = Table(Column(no_wrap=True, style="dim"), Column(overflow="fold"), box=None, show_header=False)
        for name, item in rest:
            table.add_row(cell(name), item)
        head = Text(" · ").join(keys)
        head.stylize("bold")
        return Group(head, Padding(table, (0, 0, 0, 1)))


def _widest(text: Text) -> int:
    return max((line.cell_len for line in text.split("\n")), default=0)


def apart(paths: Sequence[str]) -> tuple[str, list[str]]:
    """What paths have in common, once, and the part of each that differs from the others.

    The common part is a folder with its separator at the end, or nothing; for a single path, it is its own folder.
    """
    folders = [path.rpartition(os.sep)[0] for path in paths if "://" not in path]
    if len(folders) < len(paths) or not folders:
        return "", list(paths)
    try:
        shared = os.path.commonpath(folders)
    except ValueError:  # some are absolute and some are not
        return "", list(paths)
    if not shared or shared == os.sep:
        return "", list(paths)
    return shared + os.sep, [path[len(shared) + 1 :] if path.startswith(shared + os.sep) else path for path in paths]
