"""The files that hold the records: they only grow, and what is not committed in the index is not there."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from aim_sdk.bank.records import Source
from aim_sdk.errors import ArtifactWriteError, CorruptArtifactError
from aim_sdk.files import sync_folder

SEGMENT_BYTES = 1 << 30
"""A new segment is begun behind so many bytes."""


class Segments:
    """Numbered segment files of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._open: dict[int, int] = {}

    def path(self, segment: int) -> Path:
        """``segment-00000001.aim``, ..."""
        return self.folder / f"segment-{segment:08d}.aim"

    def present(self) -> list[int]:
        """The numbers of the files that are there."""
        names = (path.stem.removeprefix("segment-") for path in self.folder.glob("segment-*.aim"))
        return sorted(int(name) for name in names if name.isdigit())

    def source(self, segment: int) -> Source:
        """Read from a segment.

        Raises:
            CorruptArtifactError: the file is not there.
        """
        with self._lock:
            if segment not in self._open:
                try:
                    self._open[segment] = os.open(self.path(segment), os.O_RDONLY)
                except FileNotFoundError as error:
                    raise CorruptArtifactError(
                        f"{self.path(segment)}: this part of the bank is missing; put it back from a backup, or run "
                        f"`aim-icl bank verify {self.folder} --rebuild-index` to go on without it."
                    ) from error
            handle = self._open[segment]
        return lambda offset, size: self._pread(handle, segment, size, offset)

    def _pread(self, handle: int, segment: int, size: int, offset: int) -> bytes:
        try:
            return os.pread(handle, size, offset)
        except OSError as error:  # closed by a compaction in another thread, or a bad disk
            raise CorruptArtifactError(f"{self.path(segment)}: cannot be read ({error.strerror}).") from error

    def size(self, segment: int) -> int:
        return self.path(segment).stat().st_size

    def append(self, segment: int, committed: int, data: Iterable[bytes]) -> int:
        """Write behind the first ``committed`` bytes (what stands there was never committed) and sync; return the end.

        Raises:
            ArtifactWriteError: the disk is full, say; what is committed is untouched.
        """
        path, end = self.path(segment), committed
        with self._errors(path):
            new = not path.exists()
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                os.ftruncate(handle, committed)
                for part in data:
                    end = write_whole(handle, part, end)
                os.fsync(handle)
            except BaseException:
                os.ftruncate(handle, committed)
                raise
            finally:
                os.close(handle)
            if new:
                sync_folder(self.folder)
        return end

    def remove_orphans(self, sizes: Mapping[int, int]) -> None:
        """Delete files that the index does not know: of a compaction that was interrupted, or has ended."""
        with self._errors(self.folder):
            for segment in self.present():
                if segment not in sizes:
                    self.path(segment).unlink()
        self.forget(sizes)

    def forget(self, keep: Iterable[int] = ()) -> None:
        """Close the files that are not kept."""
        with self._lock:
            for segment in [segment for segment in self._open if segment not in set(keep)]:
                os.close(self._open.pop(segment))

    @contextmanager
    def _errors(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ArtifactWriteError(
                f"{path}: cannot be written ({error.strerror or error}). Everything that was added before is safe; "
                "make room or choose another folder, and run the same command again."
            ) from error


def write_whole(handle: int, data: bytes, offset: int) -> int:
    """Write all of ``data`` at ``offset``; return the end."""
    view = memoryview(data)
    while view:
        written = os.pwrite(handle, view, offset)
        offset, view = offset + written, view[written:]
    return offset
