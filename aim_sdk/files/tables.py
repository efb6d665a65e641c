"""Tables as people have them: CSV in and out, and the frames of pandas, polars and the like."""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeVar

from pydantic import ValidationError

from aim_sdk.errors import InputError, did_you_mean
from aim_sdk.files.atomic import atomic
from aim_sdk.files.json_lines import MAX_LINE, OnProblem, open_regular, other_encoding, reason
from aim_sdk.files.photo_folders import folder_images
from aim_sdk.support.dependencies import imported
from aim_sdk.types import Demonstration

if TYPE_CHECKING:
    from aim_sdk.injection.classification import Classification

Row = TypeVar("Row")

SUFFIXES: Final = frozenset({".csv", ".tsv"})
_DELIMITERS: Final = ",;\t"
"""What may separate columns; the header shows which does."""
_EXCEL: Final = re.compile(r"sep=(.)\s*")
"""A first line of Excel's that names what separates the columns."""
_FORMULA: Final = re.compile(r"[=+\-@\t\r\n]")
"""How a cell begins that a spreadsheet would run."""
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def is_table(path: Path) -> bool:
    """Whether a file's name says that it is CSV, or its sibling with tabs."""
    return path.suffix.lower() in SUFFIXES


def table_rows(path: Path, parse: Callable[[int, dict[str, Any]], Row], on_problem: OnProblem) -> Iterator[Row]:
    """Yield what `parse` makes of each row's line number and its cells by column; empty cells are left out.

    The first line is the header, with a column `image`. Columns stand between commas, semicolons or tabs, cells with
    such in them between double quotes (RFC 4180). A byte order mark is passed over, and a first line `sep=;` obeyed.

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
                    on_problem(f"{path}:{number}: not CSV ({error})")
                    continue
                if cells is None:
                    return
                try:
                    if cells:
                        yield parse(number, _by_column(columns, cells))
                except (ValidationError, InputError) as error:
                    on_problem(f"{path}:{number}: {_reason(error, columns)}")
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
    """A cell that no spreadsheet runs, by what is put before it."""
    risky = isinstance(cell, str) and _FORMULA.match(cell) and not _NUMBER.fullmatch(cell)
    return f"{before}{cell}" if risky else cell


def demonstrations_from(
    frame: Any,
    *,
    image: str = "image",
    text: str | None = "text",
    answer: str = "answer",
    same_text: str | None = None,
    metadata: Iterable[str] = (),
) -> list[Demonstration]:
    """One demonstration per row of a table.

    Args:
        frame: what gives a column by its name: a frame of pandas or polars, a dict of lists.
        image, text, answer: the names of the columns; `text=None`: no text stands next to the images. A number is an
            answer as it is written (1 is `"1"`, 1.0 is `"1.0"`); a missing text is none.
        same_text: the text that stands next to every image, in place of a column.
        metadata: columns whose cells become metadata; missing cells are left out.

    Raises:
        InputError: there is no such column, or a row is no demonstration; it names the row, counted from 0.
    """
    text = None if same_text is not None else text
    names, kept = [image, *([] if text is None else [text]), answer], list(metadata)
    if text is not None and image in (there := _names(frame)) and text not in there:
        raise InputError(
            f"{_no_column(frame, text)}\n"
            "Next: text=None where no text stands next to the images, or same_text='...' for one text of them all."
        )
    columns = {name: _column(frame, name) for name in [*names, *kept]}
    if len(lengths := {len(column) for column in columns.values()}) > 1:
        raise InputError(f"the columns have different lengths: {', '.join(map(str, sorted(lengths)))}.")
    made = []
    for row in range(lengths.pop()):
        fields = {name: columns[name][row] for name in kept}
        asked = "" if text is None or _missing(columns[text][row]) else columns[text][row]
        try:
            made.append(
                Demonstration(
                    columns[image][row],
                    asked if same_text is None else same_text,
                    _answer(columns[answer][row]),
                    {name: value for name, value in fields.items() if not _missing(value)},
                )
            )
        except InputError as error:
            raise type(error)(f"row {row}: {error}") from error
    return made


def to_frame(classifications: Sequence[Classification], images: Iterable[Any] | Path | None = None) -> Any:
    """A pandas frame with one row per label.

    Columns: `image`, `label`, `probability`, `p(CHOICE)` of each choice, `prompt_tokens`,
    `error`. The index is that of `images`, where they have one.

    Args:
        classifications: what `pipe.classify` returned.
        images: what it was given, as many, or the folder; None: the images that the labels know.

    Raises:
        MissingDependencyError: pandas is not installed.
        InputError: as many images are not there.
    """
    pandas = imported("pandas", extra="pandas")
    if isinstance(images, str | os.PathLike):
        if not os.path.isdir(images):
            raise InputError(f"to_frame: images is a {type(images).__name__}; expected the images that were labelled.")
        images = list(map(str, folder_images(Path(images))))
    known = [one.image for one in classifications]
    shown = list(images) if images is not None else known if any(one is not None for one in known) else None
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
        if number == 1 and (other := other_encoding(line)):
            raise InputError(f"{path}: expected a table in UTF-8; this is {other}.")
        if b"\0" in line:
            raise InputError(f"{path}:{number}: no text (binary, or UTF-16).")
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
        f"{', '.join(map(repr, found[:10])) or 'nothing'}.{did_you_mean('image', found)} The columns stand between "
        "commas, semicolons or tabs."
    )


def _by_column(columns: Sequence[str], cells: Sequence[str]) -> dict[str, Any]:
    if len(cells) != len(columns):
        raise InputError(f"{len(cells)} cells under {len(columns)} columns")
    return {name: cell for name, cell in zip(columns, cells, strict=True) if cell}


def _reason(error: Exception, columns: Sequence[str]) -> str:
    """What is wrong with one row; an empty cell is left out before."""
    if isinstance(error, ValidationError) and (first := error.errors(include_input=False)[0])["type"] == "missing":
        name = str(first["loc"][0])
        return f"{name}: {'the cell is empty' if name in columns else 'there is no such column'}"
    return reason(error)


def _names(frame: Any) -> list[Any]:
    return list(getattr(frame, "columns", frame))


def _no_column(frame: Any, name: str) -> str:
    names = list(map(str, _names(frame)))
    return f"no column {name!r}.{did_you_mean(name, names)} The columns are: {', '.join(names)}."


def _column(frame: Any, name: str) -> list[Any]:
    if name not in _names(frame):
        raise InputError(_no_column(frame, name))
    return list(frame[name])


def _missing(value: Any) -> bool:
    """Whether a cell holds nothing: None, NaN, or what pandas has for such."""
    return value is None or type(value).__name__ in ("NAType", "NaTType") or (value != value) is True


def _answer(value: Any) -> Any:
    if _missing(value):
        raise InputError(f"the answer is missing ({value}).")
    value = value.item() if getattr(value, "shape", None) == () else value  # a number of numpy's
    return str(value) if isinstance(value, int | float) else value
