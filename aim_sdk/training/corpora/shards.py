"""The files of a corpus as numbered records: an index is made when a file is opened, then any record is read directly.

A damaged file gives the records that can still be read; what is behind the damage is named in ``Shard.damage``.
"""

from __future__ import annotations

import codecs
import gzip
import json
import os
import re
import sys
import tarfile
import tempfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedIOBase, BytesIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from aim_sdk.errors import ArtifactWriteError
from aim_sdk.training.corpora.drops import Dropped, Unit

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_RECORD = 64 << 20
"""Bytes of the largest record that is read: a line, an element of a list, a file in a tar."""
_BLOCK = 1 << 20
_HEADS = (1 << 20, 16 << 20)
"""Bytes that are looked at to recognise a format; the more where the fewer hold no whole value."""
_BLANKS, _PARSE = re.compile(r"[ \t\r\n]*"), json.JSONDecoder(strict=False).raw_decode
_BROKEN = (OSError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile)
"""What a cut, altered or encrypted gz or zip raises."""


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
        """Give the file back."""


class Span(NamedTuple):
    """Where some bytes are in a file."""

    start: int
    size: int


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


class SampleShard(Shard):
    """A tar of samples: files that stand together and share their name up to the first dot.

    A record maps suffixes (``"jpg"``, ``"txt"``) to the files' bytes.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._starts, self._sizes, self._suffixes = array("q"), array("q"), list[str]()
        self._samples = array("q")  # where each begins in the lists above
        last: str | None = None
        try:
            for name, (start, size) in tar_spans(path):
                key, suffix = split_name(name)
                if key != last:
                    self._samples.append(len(self._starts))
                    last = key
                self._starts.append(start)
                self._sizes.append(size)
                self._suffixes.append(sys.intern(suffix))
        except Dropped as lost:
            self.damage = lost.reason

    def __len__(self) -> int:
        return len(self._samples)

    def read(self, index: int) -> dict[str, bytes]:
        end = self._samples[index + 1] if index + 1 < len(self._samples) else len(self._starts)
        return {
            self._suffixes[place]: read_span(self._file, Span(self._starts[place], self._sizes[place]))
            for place in range(self._samples[index], end)
        }

    def close(self) -> None:
        self._file.close()


class GroupedShard(Shard):
    """Consecutive records of a file as one: a list, with a :class:`Dropped` in place of what cannot be read."""

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


def open_json(path: Path) -> JsonShard:
    """A file of JSON: one value a line, or one list (``.json``). A ``.gz`` or ``.zip`` is unpacked to a temporary file.

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
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
            if not names:
                raise zipfile.BadZipFile("no file in it")
            with archive.open(names[0]) as member:
                yield cast(BufferedIOBase, member)  # it is a ZipExtFile
    else:
        with path.open("rb") as file:
            yield file


def first_json(path: Path, count: int = 20) -> Any:
    """The first value of a file of JSON that can be parsed, of the first few; None where there is none."""
    for size in _HEADS:
        head = _head(path, size)
        try:
            for span in islice(json_spans(path, head), count):
                with suppress(Dropped):
                    return parse_json(bytes(head.getbuffer()[span.start : span.start + span.size]))
        except Dropped:
            continue
    return None


def tar_spans(path: Path) -> Iterator[tuple[str, Span]]:
    """Name and place of every file of a tar that is whole.

    Raises:
        OSError: it cannot be opened.
        Dropped: the tar ends early, or is none.
    """
    size = path.stat().st_size
    try:
        with tarfile.open(path, "r:") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # they would pile up
                if member.isreg() and member.offset_data + member.size <= size:
                    yield member.name, Span(member.offset_data, member.size)
            end = tar.offset
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise Dropped("tar truncated or broken") from error
    with path.open("rb") as file:
        file.seek(end)
        if file.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:  # tarfile takes garbage for the end
            raise Dropped("tar truncated or broken")


def split_name(name: str) -> tuple[str, str]:
    """``a/b.jpg`` as ``("a/b", "jpg")``: at the first dot behind the last slash, as webdataset does it."""
    folder, slash, base = name.rpartition("/")
    key, _, suffix = base.partition(".")
    return folder + slash + key, suffix.lower()


def read_span(file: BufferedIOBase, span: Span) -> bytes:
    """Read without moving the file's position, which forked processes share.

    Raises:
        Dropped: too large, or it cannot be read.
    """
    if span.size > MAX_RECORD:
        raise Dropped(f"record larger than {MAX_RECORD >> 20} MiB")
    try:
        data = os.pread(file.fileno(), span.size, span.start)
    except OSError as error:
        raise Dropped("file unreadable") from error
    if len(data) < span.size:  # cut after the index was made
        raise Dropped("file unreadable")
    return data


def parse_json(data: bytes, unit: Unit = "document") -> Any:
    """Parse one value.

    Raises:
        Dropped: it is no JSON.
    """
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Dropped("bad json", unit) from error


def _unpacked(path: Path) -> tuple[BufferedIOBase, str | None]:
    file = tempfile.TemporaryFile(prefix="aim-corpus-")  # noqa: SIM115  # the shard closes it
    damage = None
    try:
        with unpacking(path) as packed:
            while block := packed.read1(_BLOCK):  # read() would lose what stands before the damage
                _write(file, block, path)
    except (ArtifactWriteError, FileNotFoundError, PermissionError):
        file.close()
        raise
    except _BROKEN:
        damage = f"{path.suffix[1:]} truncated or broken"
    return file, damage


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
    """Lines that are not blank; none is held whole, however long it is."""
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

    Bytes are looked at as Latin-1: what separates values in JSON is ASCII, and a position is then an offset.
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
        """Whether that comes next, behind blanks; it is then passed."""
        while True:
            self._at = _BLANKS.match(self._text, self._at).end()  # type: ignore[union-attr]  # it matches anything
            if self._at < len(self._text) or not self._more():
                break
        found = self._text.startswith(char, self._at)
        self._at += found
        return found

    def expect(self, char: str, otherwise: str) -> None:
        """Pass what must come next."""
        if not self.next_is(char):
            raise Dropped(otherwise)

    def value(self) -> Span:
        """Pass one value; the part grows until it is whole."""
        while True:
            try:
                end = _PARSE(self._text, _BLANKS.match(self._text, self._at).end())[1]  # type: ignore[union-attr]
                if end < len(self._text) or not self._more():  # at the end of the part a number, say, might go on
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
