"""Demonstrations as people have them: JSON lines, CSV, or a folder of images. Read one by one, however many."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator

from aim_sdk.errors import ImageError, InputError
from aim_sdk.files.images import is_url, load_image
from aim_sdk.files.json_lines import OnProblem, count_lines, folder_of, json_lines
from aim_sdk.files.photo_folders import Skipped, check_name, folder_images, warn_of_empty_classes
from aim_sdk.files.tables import is_table, table_rows
from aim_sdk.types import Demonstration

MAX_ANSWER_FILE = 1 << 20
"""Bytes of the largest text file next to an image."""


class DemonstrationLine(BaseModel):
    """One line of a demonstrations file. Other fields are metadata, if they are strings or numbers."""

    model_config = ConfigDict(extra="allow", strict=True)
    image: str
    text: str = ""
    answer: str

    @field_validator("answer", mode="before")
    @classmethod
    def _number(cls, value: object) -> object:
        """A number is an answer as it is written."""
        return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value

    def demonstration(self, path: Path, *, text: str = "", images: Path | None = None) -> Demonstration:
        """The demonstration, its image relative to `images`, or to the file that names it.

        If it has no text, `text` is used.
        """
        metadata = {k: v for k, v in (self.model_extra or {}).items() if isinstance(v, str | int | float | bool)}
        own = self.text if self.text.strip() else text
        return Demonstration(resolve(path, self.image, images), own, self.answer, metadata)


def stream_demonstrations(
    path: Path, *, text: str = "", images: Path | None = None, decode: bool = False, on_problem: OnProblem
) -> Iterator[Demonstration]:
    """Yield the demonstrations of a JSON lines file, of a CSV file (`.csv`, `.tsv`), or of a folder of images.

    In a folder, an image's answer is the content of the ``.txt`` file next to it, or else the name of its subfolder
    (one per class), which is also its metadata ``label``.

    Args:
        path: the file or folder.
        text: the text for every image that has none.
        images: what relative paths in a file are relative to; None: the file's own folder.
        decode: look at every image; one that cannot be decoded is a problem now, and not when it is read.
        on_problem: is called with each line or image that cannot be used.

    Raises:
        InputError: there is no such file or folder.
    """
    if path.is_dir():
        yield from _folder(path, text, decode, on_problem)
        return
    lines = table_rows if is_table(path) else json_lines

    def parse(_: int, raw: dict[str, Any]) -> Demonstration:
        line = DemonstrationLine.model_validate(raw)
        found = line.demonstration(path, text=text, images=images)
        if decode:
            try:
                load_image(found.image)
            except ImageError as error:
                raise ImageError(where_images_are(error, line.image)) from error
        return found

    yield from lines(path, parse, lambda _, said: on_problem(said))


def count_demonstrations(path: Path) -> int | None:
    """How many lines or images there are, usable or not, for a progress bar; None for a pipe.

    Raises:
        InputError: there is no such file or folder.
    """
    return sum(1 for _ in folder_images(path)) if path.is_dir() else count_lines(path)


def resolve(path: Path, image: str, images: Path | None = None) -> str:
    """An image as the file at ``path`` names it, relative to the folder ``images`` or to the file's own.

    Raises:
        InputError: it is not the name of a file.
    """
    if not image or "\0" in image:
        raise InputError(f"image: {image!r} is not the name of a file")
    return image if is_url(image) else str((images or folder_of(path)) / image)


def check_images(images: Path | None, *sources: Path | None) -> None:
    """Refuse a folder for the image paths in files that is not a folder, or for which no file names any.

    Raises:
        InputError: it names the option of the command line.
    """
    if images is None:
        return
    if not images.is_dir():
        raise InputError(f"--images: {images} is not a folder.")
    if all(source is None or source.is_dir() for source in sources):
        raise InputError("--images: it applies to the paths in a file; a folder brings its images itself.")


def where_images_are(error: Exception, image: object) -> str:
    """The message for an image that a file names; if it is missing, with the option that says where images are."""
    text = str(error)
    if not text.endswith("no such file.") or not isinstance(image, str) or is_url(image):
        return text
    return f"{text} Paths are relative to the file that names them; --images FOLDER says where the images are."


def _folder(path: Path, text: str, decode: bool, on_problem: OnProblem) -> Iterator[Demonstration]:
    skipped, classes = Skipped(path), False
    for image in folder_images(path, skipped):
        metadata: dict[str, Any] = {}
        answer_file = image.with_suffix(".txt")
        try:
            check_name(image)
            if answer_file.is_file():
                answer = _text(answer_file)
            elif image.parent != path:
                answer = metadata["label"] = image.parent.name
                classes = True
            else:
                raise InputError(
                    f"no answer; expected {answer_file.name} next to it, or a subfolder named after its class."
                )
            if decode:
                load_image(image)
            found = Demonstration(str(image), text, answer, metadata)
        except InputError as error:
            on_problem(str(error) if isinstance(error, ImageError) else f"{image}: {error}")
            continue
        yield found
    skipped.report(on_problem)
    if classes:
        warn_of_empty_classes(path)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_ANSWER_FILE + 1)
        if len(data) > MAX_ANSWER_FILE:
            raise InputError(f"{path.name} is larger than {MAX_ANSWER_FILE >> 20} MiB.")
        return data.decode("utf-8-sig").strip()
    except OSError as error:
        raise InputError(f"{path.name} cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name} is not UTF-8 (byte {error.start}).") from error
