"""Tables as people have them: CSV in and out, and the frames of pandas, polars and the like."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeVar

from pydantic import ValidationError

from aim_sdk.dependencies import imported
from aim_sdk.errors import InputError, did_you_mean
from aim_sdk.files import atomic
from aim_sdk.json_lines import MAX_LINE, OnProblem, open_regular, reason
from aim_sdk.types import Demonstration

if TYPE_CHECKING:
    from aim_sdk.classification import Classification

Row = TypeVar("Row")

SUFFIXES: Final = frozenset({".csv", ".tsv"})
_DELIMITERS: Final = ",;\t"
"""What may separate columns; the header shows which does."""
_FORMULA: Final = re.compile(r"[=+\-@\t\r\n]")
"""How a cell begins that a spreadsheet would run."""
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def is_table(path: Path) -> bool:
    """Whether a file's name says that it is CSV, or its sibling with tabs."""
    return path.suffix.lower() in SUFFIXES


def table_rows(path: Path, parse: Callable[[int, dict[str, Any]], Row], on_problem: OnProblem) -> Iterator[Row]:
    """Yield what `parse` makes of each row's line number and its cells by column; empty cells are left out.

    The first line is the header, with a column `image`. Columns stand between commas, semicolons or tabs, cells with
    such in them between double quotes (RFC 4180). A byte order mark is passed over.

    Args:
        path: the file, in UTF-8.
        parse: may raise `InputError` or pydantic's `ValidationError`: the row is then reported.
        on_problem: hears of each row that cannot be used, with the file's name and the number of its first line.

    Raises:
        InputError: it cannot be read, is not UTF-8, or has no such header.
    """
    try:
        with open_regular(path) as file:
            lines = _lines(path, file)
            header = next(lines, "")
            delimiter, columns = _header(path, header)
            rows = csv.reader(lines, delimiter=delimiter, strict=True)
            while True:
                number = rows.line_num + 2
                try:
                    cells = next(rows, None)
                except csv.Error as error:
                    on_problem(f"{path}:{number}: not CSV ({error})")
                    continue
                if cells is None:
                    return
                try:
                    if cells:
                        yield parse(number, _by_column(columns, cells))
                except (ValidationError, InputError) as error:
                    on_problem(f"{path}:{number}: {reason(error)}")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from error


def write_table(path: Path, rows: Iterable[Mapping[str, object]], columns: Sequence[str]) -> int:
    """Write rows as CSV (RFC 4180, UTF-8), whole or not at all; return how many cells were guarded.

    A cell that a spreadsheet would run as a formula (`=cmd`, `+`, `-`, `@`) gets a `'` before it; numbers stay.

    Raises:
        ArtifactWriteError: it cannot be written; what was there before is untouched.
    """
    count = 0
    with atomic(path) as file:
        for row in ({name: name for name in columns}, *rows):
            cells = [row.get(name) for name in columns]
            safe = [guarded(cell) for cell in cells]
            count += sum(isinstance(one, str) and one != other for one, other in zip(safe, cells, strict=True))
            text = io.StringIO()
            csv.writer(text).writerow(safe)
            file.write(text.getvalue().encode())
    return count


def guarded(cell: object) -> object:
    """A cell that no spreadsheet runs."""
    risky = isinstance(cell, str) and _FORMULA.match(cell) and not _NUMBER.fullmatch(cell)
    return f"'{cell}" if risky else cell


def demonstrations_from(
    frame: Any,
    *,
    image: str = "image",
    text: str | None = "text",
    answer: str = "answer",
    metadata: Iterable[str] = (),
) -> list[Demonstration]:
    """One demonstration per row of a table.

    Args:
        frame: what gives a column by its name: a frame of pandas or polars, a dict of lists.
        image, text, answer: the names of the columns; `text=None`: no text stands next to the images.
        metadata: columns whose cells become metadata; missing cells are left out.

    Raises:
        InputError: there is no such column, or a row is no demonstration; it names the row, counted from 0.
    """
    names, kept = [image, *([] if text is None else [text]), answer], list(metadata)
    columns = {name: _column(frame, name) for name in [*names, *kept]}
    if len(lengths := {len(column) for column in columns.values()}) > 1:
        raise InputError(f"the columns have different lengths: {', '.join(map(str, sorted(lengths)))}.")
    made = []
    for row in range(lengths.pop()):
        fields = {name: columns[name][row] for name in kept}
        try:
            made.append(
                Demonstration(
                    columns[image][row],
                    "" if text is None else columns[text][row],
                    columns[answer][row],
                    {name: value for name, value in fields.items() if value is not None and value == value},
                )
            )
        except InputError as error:
            raise type(error)(f"row {row}: {error}") from error
    return made


def to_frame(classifications: Sequence[Classification], images: Iterable[Any] | None = None) -> Any:
    """A pandas frame with one row per label.

    Columns: `image` (where `images` are given), `label`, `probability`, `p(CHOICE)` of each choice, `prompt_tokens`,
    `error`. The index is that of `images`, where they have one.

    Args:
        classifications: what `pipe.classify` returned.
        images: what it was given, as many.

    Raises:
        MissingDependencyError: pandas is not installed.
        InputError: as many images are not there.
    """
    pandas = imported("pandas", extra="pandas")
    shown = None if images is None else list(images)
    if shown is not None and len(shown) != len(classifications):
        raise InputError(f"to_frame: {len(classifications)} labels, but {len(shown)} images.")
    rows = [
        {
            **({} if shown is None else {"image": shown[place]}),
            "label": one.label,
            "probability": one.probability,
            **{f"p({choice})": value for choice, value in one.probabilities.items()},
            "prompt_tokens": one.prompt_tokens,
            "error": one.error,
        }
        for place, one in enumerate(classifications)
    ]
    index = getattr(images, "index", None)
    made = pandas.DataFrame(rows, index=None if index is None or callable(index) else index)
    last = [name for name in ("prompt_tokens", "error") if name in made]
    return made[[name for name in made if name not in last] + last]


def _lines(path: Path, file: BinaryIO) -> Iterator[str]:
    """The lines of a file as texts, each one bounded."""
    number = 0
    while line := file.readline(MAX_LINE + 1):
        number += 1
        if len(line) > MAX_LINE:
            raise InputError(f"{path}:{number}: longer than {MAX_LINE >> 20} MiB.")
        if b"\0" in line:
            raise InputError(f"{path}:{number}: no text (binary, or UTF-16).")
        try:
            yield (line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).decode()
        except UnicodeDecodeError as error:
            raise InputError(
                f"{path}:{number}: not UTF-8 (byte {error.start}).\n"
                "Next: save it as UTF-8, or `iconv -f WINDOWS-1252 -t UTF-8 FILE > OUT`."
            ) from error


def _header(path: Path, line: str) -> tuple[str, list[str]]:
    """What separates the columns, and their names."""
    found: list[str] = []
    for delimiter in _DELIMITERS:
        names = [name.strip() for row in csv.reader([line], delimiter=delimiter) for name in row]
        if "image" in names:
            if double := [name for name in names if names.count(name) > 1]:
                raise InputError(f"{path}: two columns are called {double[0]!r}.")
            return delimiter, names
        found = max(found, names, key=len)
    raise InputError(
        f"{path}: no column `image`; the first line must name the columns: image, text, answer, ... It names: "
        f"{', '.join(map(repr, found[:10])) or 'nothing'}.{did_you_mean('image', found)}"
    )


def _by_column(columns: Sequence[str], cells: Sequence[str]) -> dict[str, Any]:
    if len(cells) != len(columns):
        raise InputError(f"{len(cells)} cells under {len(columns)} columns")
    return {name: cell for name, cell in zip(columns, cells, strict=True) if cell}


def _column(frame: Any, name: str) -> list[Any]:
    columns = list(getattr(frame, "columns", frame))
    if name not in columns:
        near = did_you_mean(name, map(str, columns))
        raise InputError(f"no column {name!r}.{near} The columns are: {', '.join(map(str, columns))}.")
    return list(frame[name])
