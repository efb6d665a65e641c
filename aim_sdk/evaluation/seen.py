"""The images that a run answered: if a file changes under its name, the old answers do not belong to it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from aim_sdk.errors import InputError
from aim_sdk.evaluation.journal import KEPT
from aim_sdk.evaluation.tasks.pairs import SideBySide
from aim_sdk.files.atomic import writing
from aim_sdk.files.images import image_digest
from aim_sdk.types import ImageInput


class File(BaseModel):
    """One line: a file as it was when it was used for an answer."""

    model_config = ConfigDict(frozen=True)
    task: str
    image: str
    """Relative to the task's folder, which may have been moved when the run resumes."""
    sha256: str
    size: int
    mtime_ns: int

    @property
    def name(self) -> tuple[str, str]:
        """The name under which it is kept."""
        return self.task, self.image


class Seen:
    """Each process keeps the images of its own answers in the run's folder, and reads those of all processes.

    A file with the same size and modification time is considered unchanged; others are hashed again.

    Args:
        folder: the run's.
        folders: each task's own.
        rank: the process's.
    """

    def __init__(self, folder: Path, folders: Mapping[str, Path], rank: int) -> None:
        self._folder, self._folders, self._file = folder, folders, folder / f"images-{rank}.jsonl"
        self.read()

    def read(self) -> None:
        """Read what all processes have kept so far."""
        files = sorted(self._folder.glob("images-*.jsonl"))
        self._known = {file.name: file for path in files for file in _files(path)}

    def check(self) -> None:
        """Check that all files are still those that were answered.

        Raises:
            InputError: some are not; it names the first.
        """
        self.keep(now for name in list(self._known) if name[0] in self._folders and (now := self._now(*name)))

    def look(self, task: str, images: Iterable[ImageInput]) -> list[File]:
        """The files of images, as they are now; one that cannot be read is left out, because its query will report it.

        Raises:
            InputError: a file has changed since it was answered.
        """
        found = (self._now(task, name) for name in dict.fromkeys(self.names(task, images)))
        return [file for file in found if file is not None]

    def keep(self, files: Iterable[File]) -> None:
        """Record what an answer uses; when this returns, it is on disk."""
        self._add([file for file in dict.fromkeys(files) if self._known.get(file.name) is not file])

    def digest(self, task: str, image: ImageInput) -> str | None:
        """Of an image that was seen; of one that is made of two files, both with a space between them."""
        files = [self._known.get((task, name)) for name in self.names(task, [image])]
        return " ".join(file.sha256 for file in files if file is not None) or None

    def names(self, task: str, images: Iterable[ImageInput]) -> list[str]:
        """The files; an image that is in memory came with its bank's demonstration, whose key says what it is."""
        found: list[str] = []
        for image in images:
            parts = (image.left, image.right) if isinstance(image, SideBySide) else (image,)
            found += [os.fsdecode(part) for part in parts if isinstance(part, str | os.PathLike)]
        folder = str(self._folders[task])
        return [os.path.relpath(name, folder) if _below(name, folder) else os.path.abspath(name) for name in found]

    def _now(self, task: str, image: str) -> File | None:
        """A file as it is now: the known one if it has not changed, None if it is not known and cannot be read.

        Raises:
            InputError: it is known, and has changed.
        """
        path = os.path.join(self._folders[task], image)
        known = self._known.get((task, image))
        try:
            found = os.stat(path)
            if known is not None and (known.size, known.mtime_ns) == (found.st_size, found.st_mtime_ns):
                return known
            digest = image_digest(path)
        except (OSError, ValueError) as error:
            if known is None:
                return None
            raise self._changed(path, "cannot be read, but could be") from error
        if known is not None and known.sha256 != digest:
            raise self._changed(path, "is a different image than")
        return File(task=task, image=image, sha256=digest, size=found.st_size, mtime_ns=found.st_mtime_ns)

    def _changed(self, path: str, what: str) -> InputError:
        return InputError(
            f"{self._folder}: holds answers to other images: {path} {what} when they were given.\n"
            "Next: choose another --output, or put the images back to resume that run."
        )

    def _add(self, files: Sequence[File]) -> None:
        if not files:
            return
        self._known |= {file.name: file for file in files}
        lines = "".join(file.model_dump_json() + "\n" for file in files)
        with writing(self._file, KEPT), self._file.open("ab") as out:
            if out.tell():
                lines = "\n" + lines  # a kill may have left half a line
            out.write(lines.encode())
            out.flush()
            os.fsync(out.fileno())


def _below(path: str, folder: str) -> bool:
    return os.path.abspath(path).startswith(os.path.abspath(folder).rstrip(os.sep) + os.sep)


def _files(path: Path) -> list[File]:
    found: list[File] = []
    for line in path.read_bytes().split(b"\n"):
        try:
            found.append(File.model_validate(json.loads(line)))
        except (ValueError, RecursionError):  # empty, or half a line
            continue
    return found
