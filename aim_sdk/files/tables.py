"""Tables as people have them: CSV in and out, and the frames of pandas, polars and the like."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

from pydantic import ValidationError

from aim_sdk.errors import InputError, did_you_mean
from aim_sdk.files.atomic import atomic
from aim_sdk.files.json_lines import MAX_LINE, OnLine, open_regular, other_encoding, reason

Row = TypeVar("Row")

SUFFIXES: Final = frozenset({".csv", ".tsv"})
_DELIMITERS: Final = ",;\t"
"""What may separate columns; the header shows which does."""
_EXCEL: Final = re.compile(r"sep=(.)\s*")
"""Excel's optional first line, which names the column separator."""
_FORMULA: Final = re.compile(r"[=+\-@\t\r\n]")
"""Beginnings of a cell that a spreadsheet would run as a formula."""
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def is_table(path: Path) -> bool:
    """Whether a file's name says that it is CSV, or its sibling with tabs."""
    return path.suffix.lower() in SUFFIXES


def table_rows(path: Path, parse: Callable[[int, dict[str, Any]], Row], on_problem: OnLine) -> Iterator[Row]:
    """Yield what `parse` makes of each row's line number and its cells by column; empty cells are left out.

    The first line is the header, with a column `image`. Columns are separated by commas, semicolons or tabs; cells that
    contain these are in double quotes (RFC 4180). A byte order mark is skipped, and a first line `sep=;` is obeyed.

    Args:
        path: the file, in UTF-8.
        parse: may raise `InputError` or pydantic's `ValidationError`: the row is then reported.
        on_problem: is called with each row that cannot be used; its number is that of its first line.

    Raises:
        InputError: it cannot be read, is not UTF-8, or has no such header.
    """
    try:
        with open_regular(path) as file:
            lines = _lines(path, file)
            header, before = next(lines, ""), 2
            if said := _EXCEL.fullmatch(header):
                header, before = next(lines, ""), 3
            delimiter, columns = _header(path, header, _DELIMITERS if said is None else said[1])
            rows = csv.reader(lines, delimiter=delimiter, strict=True)
            while True:
                number = rows.line_num + before
                try:
                    cells = next(rows, None)
                except csv.Error as error:
                    on_problem(number, f"{path}:{number}: not CSV ({error})")
                    continue
                if cells is None:
                    return
                try:
                    if cells:
                        yield parse(number, _by_column(columns, cells))
                except (ValidationError, InputError) as error:
                    on_problem(number, f"{path}:{number}: {_reason(error, columns)}")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from error


def write_table(path: Path, rows: Iterable[Mapping[str, object]], columns: Sequence[str]) -> int:
    """Write rows as CSV (RFC 4180, UTF-8), whole or not at all; return how many cells were guarded.

    A cell that a spreadsheet would run as a formula (`=cmd`, `+`, `-`, `@`) gets a `'` before it; numbers stay. In the
    column `image` it gets `./`: it is the same path.

    Raises:
        ArtifactWriteError: it cannot be written; what was there before is untouched.
    """
    count = 0
    with atomic(path) as file:
        for row in ({name: name for name in columns}, *rows):
            cells = [row.get(name) for name in columns]
            safe = [guarded(cell, "./" if name == "image" else "'") for name, cell in zip(columns, cells, strict=True)]
            count += sum(isinstance(one, str) and one != other for one, other in zip(safe, cells, strict=True))
            text = io.StringIO()
            csv.writer(text).writerow(safe)
            file.write(text.getvalue().encode())
    return count


def guarded(cell: object, before: str = "'") -> object:
    """Prefix a cell so that no spreadsheet runs it."""
    risky = isinstance(cell, str) and _FORMULA.match(cell) and not _NUMBER.fullmatch(cell)
    return f"{before}{cell}" if risky else cell


def _lines(path: Path, file: BinaryIO) -> Iterator[str]:
    """The lines of a file as texts, each one bounded."""
    number = 0
    while line := file.readline(MAX_LINE + 1):
        number += 1
        if len(line) > MAX_LINE:
            raise InputError(f"{path}:{number}: longer than {MAX_LINE >> 20} MiB.")
        if number == 1 and (other := other_encoding(line)):
            raise InputError(f"{path}: expected a table in UTF-8; this is {other}.")
        if b"\0" in line:
            raise InputError(f"{path}:{number}: not text (binary, or UTF-16).")
        try:
            yield (line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).decode()
        except UnicodeDecodeError as error:
            raise InputError(
                f"{path}:{number}: not UTF-8 (byte {error.start}).\n"
                "Next: save it as UTF-8, or `iconv -f WINDOWS-1252 -t UTF-8 FILE > OUT`."
            ) from error


def _header(path: Path, line: str, delimiters: str) -> tuple[str, list[str]]:
    """What separates the columns, and their names."""
    found: list[str] = []
    for delimiter in delimiters if delimiters in _DELIMITERS else "":
        names = [name.strip() for row in csv.reader([line], delimiter=delimiter) for name in row]
        if "image" in names:
            if double := [name for name in names if names.count(name) > 1]:
                raise InputError(f"{path}: two columns are called {double[0]!r}.")
            return delimiter, names
        found = max(found, names, key=len)
    raise InputError(
        f"{path}: no column `image`; the first line must name the columns: image, text, answer, ... It names: "
        f"{', '.join(map(repr, found[:10])) or 'nothing'}.{did_you_mean('image', found)} Columns are separated by "
        "commas, semicolons or tabs."
    )


def _by_column(columns: Sequence[str], cells: Sequence[str]) -> dict[str, Any]:
    if len(cells) != len(columns):
        raise InputError(f"{len(cells)} cells under {len(columns)} columns")
    return {name: cell for name, cell in zip(columns, cells, strict=True) if cell}


def _reason(error: Exception, columns: Sequence[str]) -> str:
    """What is wrong with one row; empty cells were left out before."""
    if isinstance(error, ValidationError) and (first := error.errors(include_input=False)[0])["type"] == "missing":
        name = str(first["loc"][0])
        return f"{name}: {'the cell is empty' if name in columns else 'there is no such column'}"
    return reason(error)
