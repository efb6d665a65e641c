"""Folders of photos: which files are its images, and what is reported about the others."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Literal

from aim_sdk.errors import InputError
from aim_sdk.files.images import describe

IMAGE_SUFFIXES: Final = frozenset(
    {".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
"""Suffixes of image files; one that cannot be decoded here is reported as broken."""
OTHER_IMAGES: Final = frozenset(
    {".heic", ".heif", ".heics", ".jxl", ".svg", ".psd", ".xcf", ".eps"}
    | {".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".iiq", ".k25", ".kdc", ".mef", ".mos", ".mrw"}
    | {".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"}
)
"""Suffixes of image files that are not decoded here, such as cameras' raw formats."""
_NO_IMAGES: Final = frozenset({".txt", ".json", ".jsonl", ".csv", ".tsv", ".md", ".ini", ".db", ".xmp", ".aae"})
_STARTS: Final = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*"),
    b"\0\0\0\x0cjP  \r\n\x87\n",
)
_LISTED: Final = 10
"""Suffixes that a message counts one by one."""
_HEIF: Final = (b"heic", b"heix", b"hevc", b"mif1", b"msf1")
"""What follows `ftyp` in such files."""


class FolderWarning(UserWarning):
    """Files of a folder were left out, or a class has no example in it."""


class Skipped:
    """Counts the files of a folder that are not used as images, by suffix."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._convert, self._rename, self._others = Counter[str](), Counter[str](), Counter[str]()

    def add(self, path: Path) -> None:
        """Note a file; one that may be an image is looked into."""
        suffix = path.suffix.lower()
        if suffix in OTHER_IMAGES:
            kind = self._convert
        elif suffix in _NO_IMAGES:
            kind = self._others
        else:
            kind = {"decoded": self._rename, "other": self._convert, "none": self._others}[_content(path)]
        kind[suffix] += 1

    @property
    def images(self) -> str | None:
        """What to do with those that are images; None without any."""
        said = []
        if self._convert:
            said.append(f"skipped {_counted(self._convert)}: convert them to JPEG or PNG")
        if self._rename:
            said.append(f"skipped {_counted(self._rename)}, which hold images: rename them to .jpg or .png")
        return f"{describe(self._folder)}: {'; '.join(said)}." if said else None

    @property
    def others(self) -> str | None:
        """How many there are of what is not an image; None without any."""
        return f"{describe(self._folder)}: skipped {_counted(self._others)}: not images." if self._others else None

    def report(self, on_problem: Callable[[str], None]) -> None:
        """Report skipped images as a problem, and other files by a warning."""
        if self.images:
            on_problem(self.images)
        if self.others:
            warnings.warn(self.others, FolderWarning, stacklevel=3)


def folder_images(path: Path, skipped: Skipped | None = None) -> Iterator[Path]:
    """All images below a folder, in the order of their names: the same at every run. Links are followed, once each.

    Hidden files and folders are left out: they hold what a program keeps for itself (`.ipynb_checkpoints`, `._a.jpg`).
    `skipped` is called with the other files, but not of a `.txt` next to an image of its name: that is its answer.
    """
    seen = {os.path.realpath(path)}
    for folder, folders, files in os.walk(path, followlinks=True):
        places = {name: os.path.realpath(os.path.join(folder, name)) for name in folders if not name.startswith(".")}
        folders[:] = sorted(name for name, place in places.items() if place not in seen)
        seen.update(places.values())
        shown = sorted(name for name in files if not name.startswith("."))
        images = [name for name in shown if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES]
        if skipped is not None:
            taken = {*images, *(f"{os.path.splitext(name)[0]}.txt" for name in images)}
            for name in shown:
                if name not in taken:
                    skipped.add(Path(folder) / name)
        for name in images:
            yield Path(folder) / name


def check_name(path: Path | str) -> None:
    """Refuse a name that is not UTF-8: answers, banks and results hold names as text.

    Raises:
        InputError: it says so.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise InputError("the name is not UTF-8; rename the file or its folder.") from error


def warn_of_empty_classes(folder: Path) -> None:
    """Warn of subfolders of a folder of examples that hold no image."""
    empty = [
        place.name
        for place in sorted(folder.iterdir())
        if place.is_dir() and not place.name.startswith(".") and next(folder_images(place), None) is None
    ]
    if empty:
        listed = ", ".join(map(repr, empty[:10])) + (", ..." if len(empty) > 10 else "")
        warnings.warn(
            f"{describe(folder)}: no image in the class folder {listed}: such a label is never shown.",
            FolderWarning,
            stacklevel=3,
        )


def _content(path: Path) -> Literal["decoded", "other", "none"]:
    """Whether a file begins like an image that can be decoded here, like another image, or like neither."""
    try:
        if not path.is_file():  # a pipe, say
            return "none"
        with path.open("rb") as file:
            start, size = file.read(16), os.fstat(file.fileno()).st_size
    except OSError:
        return "none"
    bitmap = start[:2] == b"BM" and int.from_bytes(start[2:6], "little") == size
    if bitmap or start.startswith(_STARTS) or (start[:4] == b"RIFF" and start[8:12] == b"WEBP"):
        return "decoded"
    if start[4:8] != b"ftyp":
        return "none"
    return "decoded" if start[8:12] in (b"avif", b"avis") else "other" if start[8:12] in _HEIF else "none"


def _counted(kinds: Counter[str]) -> str:
    common = kinds.most_common(_LISTED)
    listed = [f"{count} {suffix or 'without a suffix'}" for suffix, count in common]
    if rest := kinds.total() - sum(count for _, count in common):
        listed.append(f"{rest} others")
    return ", ".join(listed)
