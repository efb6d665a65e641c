"""JSON lines from outside: read once, line by line, each one bounded; a bad line is reported and loses only itself."""

from __future__ import annotations

import codecs
import json
import math
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

from pydantic import ValidationError

from aim_sdk.errors import InputError, problem

MAX_LINE: Final = 8 << 20
"""Bytes of the longest line that is read; a longer one is skipped without being held in memory."""
MAX_NESTING: Final = 64
"""How deep lists and objects of one line may be nested."""

Item = TypeVar("Item")
OnProblem = Callable[[str], None]
"""Called with a line or an image that cannot be used."""
OnLine = Callable[[int, str], None]
"""Called with the number of each line that cannot be used, and a message that also names the file."""

_BLOCK: Final = 1 << 20
_STREAMS: Final = ("/dev/fd/", "/dev/stdin", "/dev/stdout", "/dev/stderr", "/proc/")
"""How the names of pipes begin; no files lie next to them."""
_MAGIC: Final = {
    b"\x1f\x8b": "packed with gzip; give it as <(zcat FILE)",
    b"PK\x03\x04": "a zip archive; unpack it, or give it as <(unzip -p FILE)",
    b"PAR1": "parquet; write it with pandas.read_parquet(FILE).to_json(OUT, orient='records', lines=True)",
    codecs.BOM_UTF32_LE: "UTF-32; write it with iconv -f UTF-32 -t UTF-8 FILE > OUT",  # begins as UTF-16 does
    codecs.BOM_UTF32_BE: "UTF-32; write it with iconv -f UTF-32 -t UTF-8 FILE > OUT",
    codecs.BOM_UTF16_LE: "UTF-16; write it with iconv -f UTF-16 -t UTF-8 FILE > OUT",
    codecs.BOM_UTF16_BE: "UTF-16; write it with iconv -f UTF-16 -t UTF-8 FILE > OUT",
}


def json_lines(path: Path, parse: Callable[[int, dict[str, Any]], Item], on_problem: OnLine) -> Iterator[Item]:
    """Yield what ``parse`` makes of each line's number and object.

    A regular file, or a pipe (``/dev/stdin``, ``<(head -100 x.jsonl)``), which is read once. A byte order mark and
    blank lines are skipped.

    Args:
        path: the file.
        parse: may raise `InputError` or pydantic's ``ValidationError``: the line is then reported.
        on_problem: is called with each line that cannot be used.

    Raises:
        InputError: it cannot be read, or is of another format.
    """
    try:
        with open_regular(path) as file:
            for number, line in enumerate(_lines(file), 1):
                if number == 1:
                    line = line.removeprefix(codecs.BOM_UTF8)
                    _refuse_other_formats(path, line)
                if line.strip():
                    try:
                        yield parse(number, parse_object(line))
                    except (ValidationError, InputError) as error:
                        on_problem(number, f"{path}:{number}: {reason(error)}")
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from error
    except ValueError as error:  # a NUL or half a surrogate pair in the name
        raise InputError(f"{str(path)!r}: not the name of a file ({error}).") from error


def parse_object(line: bytes, limit: int = MAX_LINE) -> dict[str, Any]:
    """One line as an object whose texts can be written and whose numbers are numbers.

    Raises:
        InputError: it exceeds the limits, is not JSON, is not an object, or holds something that JSON cannot.
    """
    line = line.strip()
    if len(line) > limit:
        raise InputError(f"longer than {limit >> 20} MiB")
    try:
        value = json.loads(line.decode(), parse_constant=_not_json, parse_float=_finite)
        check_nesting(line, value)
        if b"\\u" in line:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"half of a surrogate pair ({error.object[error.start : error.end]!r})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 (byte {error.start})") from error
    except RecursionError as error:
        raise InputError(f"nested deeper than {MAX_NESTING}") from error
    except ValueError as error:
        raise InputError(f"not JSON ({error})") from error
    if not isinstance(value, dict):
        raise InputError(f"a JSON {type(value).__name__}; expected an object, {{...}}")
    return value


def check_nesting(data: bytes, value: object) -> None:
    """Refuse a parsed value that is nested too deep for the code that walks through it next.

    Raises:
        RecursionError: it is nested deeper than ``MAX_NESTING``.
    """
    if data.count(b"[") + data.count(b"{") <= MAX_NESTING:
        return
    level: list[Any] = [value]
    for _ in range(MAX_NESTING):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer if isinstance(outer, list) else ())
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise RecursionError(f"nested deeper than {MAX_NESTING}")


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file or a pipe for reading.

    Raises:
        OSError: it cannot be opened.
        InputError: it is a folder or a device, which might have no end.
    """
    file = path.open("rb")
    mode = os.fstat(file.fileno()).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or file.isatty()):
        file.close()
        raise InputError(f"{path}: a device; expected a file or a pipe.")
    return file


def count_lines(path: Path) -> int | None:
    """How many lines a file has, usable or not; None for a pipe, which can be read only once.

    Raises:
        InputError: it cannot be read.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return None
        with path.open("rb") as file:
            count, block = 0, b"\n"
            while more := file.read(_BLOCK):
                count, block = count + more.count(b"\n"), more
            return count + (not block.endswith(b"\n"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}).") from error


def folder_of(path: Path) -> Path:
    """What the names in a file are relative to: its folder, or the current one for a pipe."""
    return Path() if is_stream(path) else path.parent


def is_stream(path: Path) -> bool:
    """Whether a name stands for a stream that a process reads or writes, such as a pipe, and not for a file."""
    return str(path).startswith(_STREAMS)


def reason(error: Exception) -> str:
    """What is wrong with one line."""
    if isinstance(error, ValidationError):
        return problem(error)
    return str(error)


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines; of one that is too long, as much as shows it."""
    while line := file.readline(MAX_LINE + 2):
        whole = line.endswith(b"\n") or len(line) <= MAX_LINE
        yield line
        while not whole:
            rest = file.readline(_BLOCK)
            whole = not rest or rest.endswith(b"\n")


def as_lines(values: Iterable[Mapping[str, Any]]) -> bytes:
    """Objects as JSON lines; what is not text in a name (a path that is not UTF-8) is escaped."""
    return "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in values).encode(errors="backslashreplace")


def other_encoding(start: bytes) -> str | None:
    """What a file is whose beginning shows that it is neither UTF-8 nor plain, and what to do with it."""
    return next((what for magic, what in _MAGIC.items() if start.startswith(magic)), None)


def _refuse_other_formats(path: Path, line: bytes) -> None:
    """Refuse a file whose first line shows that it does not hold JSON lines, and say what it is."""
    found = other_encoding(line)
    text = line.strip()
    if found is None and b"\0" in line:
        found = "not text (binary, or UTF-16)"
    elif found is None and (text in (b"[", b"[]") or text.startswith(b"[{")):
        found = "a JSON list; write it with jq -c '.[]' FILE > OUT"
    elif found is None and text == b"{":
        found = "JSON over several lines; write it with jq -c . FILE > OUT"
    elif found is None and b"image" in _fields(text) and not text.startswith(b"{"):
        found = "a table (CSV); write it with pandas.read_csv(FILE).to_json(OUT, orient='records', lines=True)"
    if found is not None:
        raise InputError(f"{path}: expected JSON lines, one object per line; this is {found}.")


def _fields(line: bytes) -> list[bytes]:
    separator = next((mark for mark in (b",", b"\t", b";") if mark in line), b",")
    return [field.strip().strip(b'"') for field in line[:_BLOCK].split(separator)]


def _not_json(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number; leave the field out, or write null")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is too large for a number")
    return number
