"""The log of a bank: its segments, and the index that follows them. What is written here is durable.

The order of a write makes it safe: its records are appended under the next number and synced, and that is what makes
them durable; then the index takes them in. What a crash leaves is either a whole write, which the index takes in later,
or bytes that are not a write, which nobody counts. Any number of processes read; one writes at a time.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from aim_sdk.bank.disk import recovery, segments
from aim_sdk.bank.disk.applying import apply
from aim_sdk.bank.disk.entries import Opening
from aim_sdk.bank.disk.folder import INDEX, Folder, prepare
from aim_sdk.bank.disk.index import Index
from aim_sdk.bank.disk.segments import Segments
from aim_sdk.bank.disk.writes import Write, framed
from aim_sdk.errors import ArtifactError, ArtifactNotFoundError, BankLockedError, CorruptArtifactError
from aim_sdk.files import records
from aim_sdk.files.atomic import sync_folder, writing

_BUSY_SECONDS = 1.0
"""How long opening waits for a writer, which adds what the index is missing by itself."""

T = TypeVar("T")


class Log:
    """A bank's folder, open.

    Args:
        path: a bank's folder; with ``new``, one that is empty or not there yet becomes a bank.
        new: what a new bank's segments begin with.

    Raises:
        ArtifactNotFoundError: there is no bank, and no new one is to be created.
        CorruptArtifactError: the index is damaged, older than the segments, or of another version.
        ArtifactWriteError: a new bank cannot be written.
    """

    def __init__(self, path: Path, new: Opening | None = None) -> None:
        self.path = Path(os.path.abspath(path))
        prepare(self.path, may_create=new is not None)
        self.folder = Folder(self.path)
        self.lock = threading.RLock()
        self.changes = 0
        """Changes of entries by this process."""
        self.segments = Segments(self.path)
        self._index = Index(self.path / INDEX, writable=self.folder.writable)
        try:
            if self._index.is_new:
                self._create(self._index, new)
            self.opening = _opening(self._index)
            self._take_in(self._index)
        except ArtifactError:
            self.close()
            raise
        _OPEN.add(self)

    @property
    def index(self) -> Index:
        """The index; opened again where another file has taken its place."""
        index = self._index
        if not index.stale:
            return index
        with self.lock:
            self.folder.check()
            if not (self.path / INDEX).is_file():
                raise CorruptArtifactError(
                    f"{self.path}: the index ({INDEX}) is missing. "
                    f"Next: `aim-icl bank verify {self.path} --rebuild-index`."
                )
            new = Index(self.path / INDEX, writable=self.folder.writable)
            try:
                self._check_bank(new)
                self._take_in(new)
            except ArtifactError:
                new.close()
                raise
            index.close()
            self._index = new
        return new

    @contextmanager
    def writing(self) -> Iterator[Index]:
        """Hold the writer's lock, with an index that knows all that the segments hold.

        Raises:
            BankLockedError: another process holds it for too long.
            ArtifactWriteError: the folder is read-only.
            ArtifactNotFoundError: the folder was moved or replaced since it was opened.
            CorruptArtifactError: index and segments do not fit together; nothing is changed.
        """
        with self.lock, self.folder.locked():
            index = self.index
            self._check_bank(index)
            self._take_in_locked(index)
            if problem := recovery.lost(self.segments, index.segments(), self.segments.present()):
                raise CorruptArtifactError(problem)
            yield index

    def take_in(self) -> None:
        """Let the index know what a crash, or a full disk under the index, has kept from it."""
        self._take_in(self.index)

    def before_fork(self) -> None:
        """Wait for a write to end: a forked process has none of the threads that would end it."""
        self.lock.acquire()

    def after_fork(self) -> None:
        """In parent and child, which has one thread, the one that forked."""
        self.lock.release()

    def in_child(self) -> None:
        """Take what a process must have of its own: the writer's lock, and places in the segments' files."""
        self.after_fork()
        _OF_PARENTS.append(self.folder)  # releasing its lock would release the parent's
        self.folder, self.segments = self.folder.again(), Segments(self.path)

    def _create(self, index: Index, new: Opening | None) -> None:
        with self.lock, self.folder.locked():
            if not index.is_new:
                return  # another process was first
            if self.segments.present():
                raise index.damaged("it is empty")
            if new is None:
                raise ArtifactNotFoundError(f"{self.path}: no bank is there. `aim-icl bank add` creates one.")
            with writing(self.path):
                index.create(new.settings())
                sync_folder(self.path)

    def _check_bank(self, index: Index) -> None:
        if _opening(index).id != self.opening.id:
            raise ArtifactNotFoundError(
                f"{self.path}: another bank replaced this one while it was open; nothing was changed. "
                "Next: open it again."
            )

    def _take_in(self, index: Index) -> None:
        """Take in complete writes that the index does not know, unless another process is doing so."""
        if not self._tail(index).writes:
            return
        if not self.folder.writable:
            self._take_in_locked(index)  # in the copy
            return
        try:
            with self.folder.locked(_BUSY_SECONDS):
                self._take_in_locked(index)
        except BankLockedError:
            return  # a writer took them in before it began

    def _take_in_locked(self, index: Index) -> None:
        found = self._tail(index)
        if not found.seen:
            return
        with index.transaction():
            for write in found.writes:
                self._apply(write, index)
            index.know(found.seen)
        self.changes += 1

    def _apply(self, write: Write, index: Index) -> None:
        where = str(self.segments.path(write.segment))
        try:
            for record in records.scan(self.segments.source(write.segment), write.end, where, write.start):
                if isinstance(record, CorruptArtifactError):
                    raise record
                apply(record, write.segment, index, where)
        except CorruptArtifactError as error:
            raise CorruptArtifactError(
                f"{error}\nNext: `aim-icl bank verify {self.path} --rebuild-index`, which keeps all that is whole."
            ) from error
        index.finish(write.number, write.segment, write.end)

    def _tail(self, index: Index) -> recovery.Tail:
        def find() -> recovery.Tail:
            present = self.segments.present()  # before the index, which then knows of them what a writer has finished
            with index.snapshot():
                known, last = index.segments(), index.state().write
            if last and not known:
                raise index.damaged("it lists no segment")
            return recovery.tail(self.segments, present, known, last, self.opening.id)

        return self.settled(find)

    def settled(self, read: Callable[[], T]) -> T:
        """Read again if segments have appeared or disappeared: a compaction in another process moves entries.

        Raises:
            CorruptArtifactError: what is wrong has another reason.
        """
        with suppress(CorruptArtifactError):
            return read()
        while True:
            before = set(self.segments.present())
            try:
                return read()
            except CorruptArtifactError:
                self.folder.check()
                if set(self.segments.present()) == before:
                    raise

    @contextmanager
    def written(self, index: Index, data: Sequence[bytes]) -> Iterator[tuple[int, int]]:
        """Append records as one write and sync them; give their segment and start, and let the index take them in."""
        number = index.state().write + 1
        write = framed(number, data)
        known, present = index.segments(), self.segments.present()
        segment = max((n for n in known if not known[n].base and known[n].size), default=0)
        size = present.get(segment, 0)
        if segment and size < segments.SEGMENT_BYTES and known[segment].size == known[segment].seen == size:
            end = self.segments.append(segment, size, write)
        else:  # even if bytes that are not a write follow: they stay as they are
            segment = max([*known, *present], default=0) + 1
            end = self.segments.create(segment, [self.opening.record(), *write])
        with index.transaction():
            yield segment, end - sum(map(len, data))
            index.finish(number, segment, end)

    def close(self) -> None:
        _OPEN.discard(self)
        self._index.close()
        self.segments.forget()


def _opening(index: Index) -> Opening:
    try:
        return Opening.from_settings(index.settings())
    except (KeyError, ValueError, RecursionError) as error:  # pydantic's error is a ValueError
        raise index.damaged("its settings are not those of a bank") from error


_OPEN: weakref.WeakSet[Log] = weakref.WeakSet()
_FORKING: list[Log] = []
_OF_PARENTS: list[Folder] = []


def _before_fork() -> None:
    _FORKING[:] = list(_OPEN)
    for log in _FORKING:
        log.before_fork()


def _after_fork() -> None:
    for log in reversed(_FORKING):
        log.after_fork()


def _in_child() -> None:
    for log in reversed(_FORKING):
        log.in_child()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_child)
