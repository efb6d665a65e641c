"""Tars by offset: their files are read in any order, and none is unpacked."""

from __future__ import annotations

import sys
import tarfile
from array import array
from collections.abc import Iterator
from pathlib import Path

from aim_sdk.training.corpora import shards
from aim_sdk.training.corpora.drops import Dropped
from aim_sdk.training.corpora.shards import Shard, Span, read_span


class SampleShard(Shard):
    """A tar of samples: consecutive files that share their name up to the first dot.

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
        if sum(self._sizes[self._samples[index] : end]) > shards.MAX_RECORD:
            raise Dropped(f"record larger than {shards.MAX_RECORD >> 20} MiB")
        return {
            self._suffixes[place]: read_span(self._file, Span(self._starts[place], self._sizes[place]))
            for place in range(self._samples[index], end)
        }

    def close(self) -> None:
        self._file.close()


class _BoundedInfo(tarfile.TarInfo):
    """A header whose sizes are checked before anything is read or skipped by them."""

    _READ_WHOLE = frozenset(
        {tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE}
        | {tarfile.SOLARIS_XHDTYPE}
    )

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if self.size < 0 or (self.type in self._READ_WHOLE and self.size > shards.MAX_TAR_HEADER):
            raise tarfile.ReadError("a header's size")
        return super()._proc_member(tar)  # type: ignore[misc,no-any-return]  # what subclasses are to override


def tar_spans(path: Path) -> Iterator[tuple[str, Span]]:
    """Name and place of every file of a tar that is whole; links, devices and sparse files have a size below zero.

    Names are names: nothing is unpacked to them, wherever they point.

    Raises:
        OSError: it cannot be opened.
        Dropped: the tar ends early, or is not a tar.
    """
    size = path.stat().st_size
    try:
        with tarfile.open(path, "r:", tarinfo=_BoundedInfo) as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # they would pile up
                if member.isdir():
                    continue
                if not member.isreg() or member.issparse():
                    yield member.name, Span(0, -1)
                elif member.offset_data + member.size <= size:
                    yield member.name, Span(member.offset_data, member.size)
            end = tar.offset
    except (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError) as error:
        raise Dropped("tar truncated or broken") from error
    with path.open("rb") as file:
        file.seek(end)
        if file.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:  # tarfile treats garbage as the end
            raise Dropped("tar truncated or broken")


def split_name(name: str) -> tuple[str, str]:
    """``a/b.jpg`` as ``("a/b", "jpg")``: at the first dot after the last slash, as webdataset does it."""
    folder, slash, base = name.rpartition("/")
    key, _, suffix = base.partition(".")
    return folder + slash + key, suffix.lower()
