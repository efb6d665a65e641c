"""Demonstrations as people have them: JSON lines, or a folder of images. Read one by one, however many there are."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from aim_sdk.errors import InputError
from aim_sdk.images import is_url
from aim_sdk.types import Demonstration

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})

OnProblem = Callable[[str], None]
"""Hears of a line or an image that cannot be used."""


class DemonstrationLine(BaseModel):
    """One line of a demonstrations file. Other fields are metadata, if they are strings or numbers."""

    model_config = ConfigDict(extra="allow", strict=True)
    image: str
    text: str = ""
    answer: str

    def demonstration(self, path: Path) -> Demonstration:
        """The demonstration, its image relative to the file that names it."""
        metadata = {k: v for k, v in (self.model_extra or {}).items() if isinstance(v, str | int | float | bool)}
        return Demonstration(resolve(path, self.image), self.text, self.answer, metadata)


def stream_demonstrations(path: Path, *, text: str = "", on_problem: OnProblem) -> Iterator[Demonstration]:
    """Yield the demonstrations of a JSON lines file, or of a folder of images.

    In a folder, an image's answer is the content of the ``.txt`` file beside it, or else the name of the subfolder that
    it stands in (one a class), which is also its metadata ``label``. ``text`` stands beside every image.

    Raises:
        InputError: there is no such file or folder.
    """
    if path.is_dir():
        yield from _folder(path, text, on_problem)
        return
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    try:
                        yield DemonstrationLine.model_validate(json.loads(line)).demonstration(path)
                    except (ValidationError, InputError, ValueError) as error:
                        on_problem(f"{path}:{number}: {reason(error)}")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error


def count_demonstrations(path: Path) -> int:
    """How many lines or images there are, usable or not: for a progress bar."""
    if path.is_dir():
        return sum(1 for _ in _images(path))
    try:
        with path.open("rb") as file:
            return sum(1 for line in file if line.strip())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error


def resolve(path: Path, image: str) -> str:
    """An image as the file at ``path`` names it."""
    return image if is_url(image) else str(path.parent / image)


def reason(error: Exception) -> str:
    """What is wrong with one line."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc'])) or 'line'}: {first['msg']}"
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
        return f"not JSON ({error})"
    return str(error)


def _folder(path: Path, text: str, on_problem: OnProblem) -> Iterator[Demonstration]:
    for image in _images(path):
        metadata: dict[str, Any] = {}
        beside = image.with_suffix(".txt")
        try:
            if beside.is_file():
                answer = beside.read_text(encoding="utf-8").strip()
            elif image.parent != path:
                answer = metadata["label"] = image.parent.name
            else:
                on_problem(
                    f"{image}: no answer; expected {beside.name} beside it, or a subfolder named like its class."
                )
                continue
            yield Demonstration(str(image), text, answer, metadata)
        except (OSError, InputError, ValueError) as error:
            on_problem(f"{image}: {reason(error)}")


def _images(path: Path) -> Iterator[Path]:
    """All images below a folder, in the order of their names: the same at every run."""
    for folder, folders, files in os.walk(path):
        folders.sort()
        for name in sorted(files):
            if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:
                yield Path(folder) / name
