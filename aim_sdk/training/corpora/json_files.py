"""JSON as one value per line or as one list, plain or packed: indexed without holding more than one value."""

from __future__ import annotations

import codecs
import gzip
import json
import os
import re
import struct
import tempfile
import zipfile
import zlib
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedIOBase, BytesIO
from itertools import islice
from pathlib import Path
from typing import Any, cast

from aim_sdk.errors import ArtifactWriteError
from aim_sdk.files.json_lines import check_nesting
from aim_sdk.training.corpora import shards
from aim_sdk.training.corpora.drops import Dropped, Unit
from aim_sdk.training.corpora.shards import MAX_RECORD, Shard, Span, read_span

_BLOCK = 1 << 20
_HEADS = (1 << 20, 16 << 20)
"""Bytes that are read to recognise a format; the larger number if the smaller holds no complete value."""
_ZIP_END = 22 + (1 << 16)
"""Bytes at the end of a zip among which it says how long its list of files is."""
_BLANKS, _PARSE = re.compile(r"[ \t\r\n]*"), json.JSONDecoder(strict=False).raw_decode
_BROKEN = (OSError, EOFError, RuntimeError, ValueError, LookupError, zlib.error, struct.error, zipfile.BadZipFile)
"""What a cut, altered or encrypted gz or zip raises."""
_FREE = 64 << 20
"""Up to this many bytes the ratio is not checked: a small file of blanks is not a bomb."""


class JsonShard(Shard):
    """JSON at known places of a file.

    Args:
        file: read at these places; it is closed with the shard.
        spans: where; what it raises ends the records.
        damage: why not all of the file is there.
    """

    def __init__(self, file: BufferedIOBase, spans: Iterable[Span], damage: str | None = None) -> None:
        self._file, self.damage = file, damage
        self._starts, self._sizes = array("q"), array("q")
        try:
            for start, size in spans:
                self._starts.append(start)
                self._sizes.append(size)
        except Dropped as lost:
            self.damage = self.damage or lost.reason

    def __len__(self) -> int:
        return len(self._starts)

    def read(self, index: int) -> Any:
        return parse_json(read_span(self._file, Span(self._starts[index], self._sizes[index])))

    def close(self) -> None:
        self._file.close()


def open_json(path: Path) -> JsonShard:
    """JSON: one value per line, or one list (``.json``). A ``.gz`` or ``.zip`` is unpacked to a temporary file.

    Raises:
        OSError: it cannot be opened.
        ArtifactWriteError: no room for the temporary file.
    """
    file, damage = _unpacked(path) if path.suffix in (".gz", ".zip") else (path.open("rb"), None)
    return JsonShard(file, json_spans(path, file), damage)


def json_spans(path: Path, file: BufferedIOBase) -> Iterator[Span]:
    """Where the values are in a file that is called ``path``."""
    return _elements(file) if ".json" in path.suffixes else _lines(file)


@contextmanager
def unpacking(path: Path) -> Iterator[BufferedIOBase]:
    """A file as it is, or what a ``.gz`` or the first file of a ``.zip`` holds."""
    if path.suffix == ".gz":
        with gzip.open(path) as unpacked:
            yield unpacked
    elif path.suffix == ".zip":
        _check_directory(path)
        with zipfile.ZipFile(path) as archive:
            first = next((info for info in archive.infolist() if not info.is_dir()), None)
            if first is None or first.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise zipfile.BadZipFile("no file in it, or one of a method whose memory is not bounded")
            with archive.open(first) as member:
                yield cast(BufferedIOBase, member)  # it is a ZipExtFile
    else:
        with path.open("rb") as file:
            yield file


def first_json(path: Path, count: int = 20) -> Any:
    """The first value of a file of JSON that can be parsed, of the first few; None if there is none."""
    for size in _HEADS:
        head = _head(path, size)
        try:
            for span in islice(json_spans(path, head), count):
                with suppress(Dropped):
                    return parse_json(bytes(head.getbuffer()[span.start : span.start + span.size]))
        except Dropped:
            continue
    return None


def parse_json(data: bytes, unit: Unit = "document") -> Any:
    """Parse one value.

    Raises:
        Dropped: it is not JSON.
    """
    try:
        value = json.loads(data)
        check_nesting(data, value)
        return value
    except (ValueError, RecursionError) as error:
        raise Dropped("bad json", unit) from error


def _unpacked(path: Path) -> tuple[BufferedIOBase, str | None]:
    file = tempfile.TemporaryFile(prefix="aim-corpus-")  # noqa: SIM115  # the shard closes it
    damage, kind = None, path.suffix[1:]
    most = min(shards.MAX_UNPACKED, max(_FREE, path.stat().st_size * shards.MAX_RATIO))
    try:
        with unpacking(path) as packed:
            while block := packed.read1(_BLOCK):  # read() would lose the data before the damage
                if file.tell() + len(block) > most:
                    damage = f"{kind} unpacks to more than {most >> 20} MiB"
                    break
                _write(file, block, path)
    except (ArtifactWriteError, FileNotFoundError, PermissionError):
        file.close()
        raise
    except _BROKEN:
        damage = f"{kind} truncated or broken"
    return file, damage


def _check_directory(path: Path) -> None:
    """Refuse a zip whose list of files is too long to be read.

    Raises:
        BadZipFile: it is too long, or the zip has lost its end.
    """
    with path.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _ZIP_END))
        end = file.read()
    place = end.rfind(b"PK\x05\x06")
    if place < 0 or struct.unpack_from("<I", end, place + 12)[0] > shards.MAX_DIRECTORY:
        raise zipfile.BadZipFile("no list of files, or too long a one")


def _head(path: Path, size: int) -> BytesIO:
    head = BytesIO()
    with suppress(*_BROKEN), unpacking(path) as file:
        while head.tell() < size and (block := file.read1(_BLOCK)):
            head.write(block)
    return head


def _write(file: BufferedIOBase, block: bytes, path: Path) -> None:
    try:
        file.write(block)
        file.flush()
    except OSError as error:
        raise ArtifactWriteError(
            f"{path}: unpacked to a temporary file in {tempfile.gettempdir()}, which cannot be written "
            f"({error.strerror}). Make room, or set TMPDIR to another folder."
        ) from error


def _lines(file: BufferedIOBase) -> Iterator[Span]:
    """The lines that are not blank; none is held in memory as a whole, however long it is."""
    start = end = 0
    blank = True
    file.seek(0)
    while piece := file.readline(_BLOCK):
        end += len(piece)
        blank = blank and not piece.strip()
        if piece.endswith(b"\n"):
            if not blank:
                yield Span(start, end - start)
            start, blank = end, True
    if not blank:
        yield Span(start, end - start)


def _elements(file: BufferedIOBase) -> Iterator[Span]:
    """The elements of one list, found by parsing each and forgetting it.

    Bytes are read as Latin-1: what separates values in JSON is ASCII, and a position is then an offset.
    """
    file.seek(0)
    if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
        file.seek(0)
    window = _Window(file)
    window.expect("[", "json without a list")
    if window.next_is("]"):
        return
    while True:
        yield window.value()
        if window.next_is("]"):
            return
        window.expect(",", "json list truncated or broken")


class _Window:
    """A moving part of a file, as text."""

    def __init__(self, file: BufferedIOBase) -> None:
        self._file, self._text, self._at, self._offset = file, "", 0, file.tell()

    def next_is(self, char: str) -> bool:
        """Whether that comes next, after blanks; if so, skip it."""
        while True:
            self._at = _BLANKS.match(self._text, self._at).end()  # type: ignore[union-attr]  # it matches anything
            if self._at < len(self._text) or not self._more():
                break
        found = self._text.startswith(char, self._at)
        self._at += found
        return found

    def expect(self, char: str, otherwise: str) -> None:
        """Skip what must come next."""
        if not self.next_is(char):
            raise Dropped(otherwise)

    def value(self) -> Span:
        """Skip one value; the window grows until it holds all of it."""
        while True:
            try:
                end = _PARSE(self._text, _BLANKS.match(self._text, self._at).end())[1]  # type: ignore[union-attr]
                if end < len(self._text) or not self._more():  # at the end of the window a number might continue
                    break
            except (ValueError, RecursionError) as error:
                if not self._more():
                    raise Dropped("json list truncated or broken") from error
        span = Span(self._offset + self._at, end - self._at)
        self._at = end
        return span

    def _more(self) -> bool:
        kept = self._text[self._at :]
        if len(kept) > MAX_RECORD:
            return False
        block = self._file.read(max(_BLOCK, len(kept)))  # twice as much each time: a large value is parsed a few times
        self._offset += self._at
        self._text, self._at = kept + block.decode("latin-1"), 0
        return bool(block)
