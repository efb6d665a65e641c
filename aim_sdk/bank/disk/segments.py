"""The files that hold the records: numbered, and they only grow. Nothing but a compaction deletes one."""

from __future__ import annotations

import os
import re
import stat
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from aim_sdk.errors import ArtifactWriteError, CorruptArtifactError
from aim_sdk.files.atomic import sync_folder
from aim_sdk.files.records import ByteSource, UnreadableError

SEGMENT_BYTES = 1 << 30
"""A new segment begins after this many bytes."""
_NAME = re.compile(r"segment-(\d{8,})\.aim")


class Segments:
    """Numbered segment files of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._open: dict[int, int] = {}

    def path(self, segment: int) -> Path:
        """``segment-00000001.aim``, ..."""
        return self.folder / f"segment-{segment:08d}.aim"

    def present(self) -> dict[int, int]:
        """The numbers of the files that are there, in order, with their bytes."""
        found: dict[int, int] = {}
        try:
            with os.scandir(self.folder) as items:
                for item in items:
                    if (name := _NAME.fullmatch(item.name)) and self.path(int(name[1])).name == item.name:
                        with suppress(FileNotFoundError):  # deleted by a compaction meanwhile
                            status = item.stat(follow_symlinks=False)  # a link is not a segment
                            if stat.S_ISREG(status.st_mode):
                                found[int(name[1])] = status.st_size
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise _unreadable(self.folder, error) from error
        return dict(sorted(found.items()))

    def source(self, segment: int) -> ByteSource:
        """Read from a segment.

        Raises:
            CorruptArtifactError: the file is missing.
        """
        with self._lock:
            if segment not in self._open:
                try:
                    handle = os.open(self.path(segment), os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
                except FileNotFoundError as error:
                    raise CorruptArtifactError(
                        f"{self.path(segment)}: this part of the bank is missing. Next: put this file back, or run "
                        f"`aim-icl bank verify {self.folder} --rebuild-index` to do without it."
                    ) from error
                except OSError as error:
                    raise _unreadable(self.path(segment), error) from error
                if not stat.S_ISREG(os.fstat(handle).st_mode):
                    os.close(handle)
                    raise CorruptArtifactError(f"{self.path(segment)}: not a file.")
                self._open[segment] = handle
            handle = self._open[segment]
        return lambda offset, size: self._pread(handle, segment, size, offset)

    def _pread(self, handle: int, segment: int, size: int, offset: int) -> bytes:
        try:
            return os.pread(handle, size, offset)
        except (OSError, OverflowError) as error:  # closed by a compaction in another thread, or a bad disk
            raise _unreadable(self.path(segment), error) from error

    def opened(self) -> dict[int, int]:
        """The bytes of the segments that are open, also where they were deleted since."""
        with self._lock:
            return {segment: os.fstat(handle).st_size for segment, handle in self._open.items()}

    def dense(self, segment: int, start: int, size: int) -> int:
        """Where the first hole after ``start`` begins; ``size`` if there is none. Nobody has written what is in it."""
        self.source(segment)
        try:
            return min(size, os.lseek(self._open[segment], start, os.SEEK_HOLE))
        except OSError:  # a file system without holes, or ``start`` is the end
            return size

    def create(self, segment: int, data: Iterable[bytes]) -> int:
        """Write a new segment and sync it and its name; return its bytes.

        Raises:
            ArtifactWriteError: the disk is full, say; the file is gone again.
        """
        path = self.path(segment)
        with self._errors(path):
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            try:
                end = _written(handle, data, 0)
                os.fsync(handle)
                sync_folder(self.folder)
            except BaseException:
                with suppress(OSError):
                    path.unlink()
                raise
            finally:
                os.close(handle)
        return end

    def append(self, segment: int, size: int, data: Sequence[bytes]) -> int:
        """Write at the end of a segment, which has ``size`` bytes, and sync; return the end.

        Raises:
            ArtifactWriteError: the disk is full, say; the file is as it was.
        """
        path = self.path(segment)
        with self._errors(path):
            handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
            try:
                end = _written(handle, data, size)
                os.fsync(handle)
            except BaseException:
                with suppress(OSError):
                    os.ftruncate(handle, size)
                raise
            finally:
                os.close(handle)
        return end

    def delete(self, segments: Iterable[int]) -> None:
        """Delete files: the end of a compaction."""
        with self._errors(self.folder):
            for segment in segments:
                self.path(segment).unlink(missing_ok=True)

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


def _unreadable(path: Path, error: Exception) -> UnreadableError:
    return UnreadableError(
        f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}). Next: try again; if it stays so, copy "
        "what can be read to another disk."
    )


def _written(handle: int, data: Iterable[bytes], offset: int) -> int:
    for part in data:
        offset = write_whole(handle, part, offset)
    return offset


def write_whole(handle: int, data: bytes, offset: int) -> int:
    """Write all of ``data`` at ``offset``; return the end."""
    view = memoryview(data)
    while view:
        written = os.pwrite(handle, view, offset)
        offset, view = offset + written, view[written:]
    return offset
