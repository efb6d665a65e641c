"""Where a corpus's images are: by name, by address, or inside its files. They are measured, not decoded."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from aim_sdk.errors import ArtifactNotFoundError, InputError
from aim_sdk.files import images
from aim_sdk.files.atomic import expanded
from aim_sdk.files.photo_folders import IMAGE_SUFFIXES
from aim_sdk.training.corpora.drops import Dropped

if TYPE_CHECKING:
    from aim_sdk.types import ImageInput

Resolver = Callable[[str], "str | os.PathLike[str] | bytes | None"]
"""Takes an image's address; returns its path, the bytes of its file, or None if there is none."""

URL_MAPS = ("urls.json", "urls.csv")
_SUFFIXES = ("", ".jpg", ".jpeg", ".png", ".webp", ".gif")


class CorpusImages:
    """Finds the images of one corpus. A name never leads out of the folder that it is relative to.

    An image with an address is looked up, in this order, by ``resolve``; in ``urls.json`` (``{address: file}``) or
    ``urls.csv`` (columns ``url`` and ``file``) of the folder; as a file of the folder that is named by the SHA-256 or
    the MD5 of the address, with any usual suffix.

    Args:
        folder: what names are relative to; None: the folder of the file that names them.
        min_bytes: smaller files are not used.
        resolve: finds an image by its address; None: as above.

    Raises:
        ArtifactNotFoundError: no such folder.
        InputError: ``urls.json`` or ``urls.csv`` cannot be used.
    """

    def __init__(self, folder: Path | None, min_bytes: int, resolve: Resolver | None = None) -> None:
        if folder is not None and not expanded(folder).is_dir():
            raise ArtifactNotFoundError(f"{folder}: no such folder of images.")
        self._folder = None if folder is None else os.path.abspath(expanded(folder))
        self._min_bytes, self._resolve = min_bytes, resolve
        self._files = self._read_map()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_files": None}  # as large as the corpus has images: read again, not sent

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._files = self._read_map()

    def named(self, name: str, shard: Path) -> str:
        """The path of an image that ``shard`` names.

        Images may be in one folder for all shards, or in one per shard: ``<shard>_images`` (as MMC4's downloader has
        it), ``<shard>``, or the shard's number (as OpenFlamingo's converter has it).

        Raises:
            Dropped: no such file, it is too small or too large, or the name leads out of the folder.
        """
        folder = self._folder or str(shard.parent)
        path = _inside(folder, name)
        below = os.path.relpath(path, folder)
        return self._first([path, *(os.path.join(folder, place, below) for place in _places(shard))])

    def at(self, url: str, shard: Path) -> ImageInput:
        """The image that was downloaded from an address.

        Raises:
            Dropped: there is none, or it is too small or too large.
        """
        if self._resolve is not None:
            found = self._resolve(url)
            return self.encoded(found) if isinstance(found, bytes) else self._first([os.fspath(found)] if found else [])
        if self._files and url in self._files:
            return self.named(self._files[url], shard)
        folder = self._folder or str(shard.parent)
        return self._first(os.path.join(folder, name) for name in _hashed(url))

    def encoded(self, data: bytes) -> bytes:
        """The bytes of an image file as they are.

        Raises:
            Dropped: they are too few, or too many.
        """
        self._check(len(data))
        return data

    def base64(self, text: str) -> bytes:
        """The bytes of an image file in base64, with or without ``data:...;base64,`` before them.

        Raises:
            Dropped: it is not base64, or too small or too large.
        """
        if len(text) > 2 * images.MAX_FILE_BYTES:
            self._check(len(text) // 2)  # before copies are made of it
        if text.startswith("data:"):
            text = text.partition(",")[2]
        if text.startswith("b'") and text.endswith("'"):
            text = text[2:-1]  # OpenFlamingo's first converter wrote the str() of the bytes
        try:
            return self.encoded(base64.b64decode("".join(text.split()), validate=True))
        except ValueError as error:
            raise Dropped("base64 broken", "pair") from error

    def anywhere(self, source: str, shard: Path) -> ImageInput:
        """An image by path, address or data URI.

        Raises:
            Dropped: as for the other methods.
        """
        if source.startswith("data:"):
            return self.base64(source)
        return self.at(source, shard) if images.is_url(source) else self.named(source, shard)

    def _first(self, paths: Iterable[str]) -> str:
        """The first of the paths that is a file."""
        for path in paths:
            if (size := _file_size(path)) is not None:
                self._check(size)
                return path
        raise Dropped("image missing", "pair")

    def _check(self, size: int) -> None:
        if size < self._min_bytes:
            raise Dropped(f"image smaller than {self._min_bytes} bytes", "pair")
        if size > images.MAX_FILE_BYTES:
            raise Dropped(f"image larger than {images.MAX_FILE_BYTES} bytes", "pair")

    def _read_map(self) -> dict[str, str] | None:
        for name in URL_MAPS if self._folder else ():
            path = Path(str(self._folder), name)
            if path.is_file():
                return _read_urls(path)
        return None


def _read_urls(path: Path) -> dict[str, str]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            if path.suffix == ".json":
                found = json.load(file)
            elif {"url", "file"} <= set(rows.fieldnames or ()):
                found = {row["url"]: row["file"] for row in rows}
            else:
                raise ValueError(f"the columns are {rows.fieldnames}")
            return {str(url): str(name) for url, name in found.items()}
    except (OSError, ValueError, AttributeError, RecursionError, csv.Error) as error:
        expected = "the columns `url` and `file`" if path.suffix == ".csv" else "one object, {address: file}"
        raise InputError(f"{path}: cannot be used ({error}); expected {expected}.") from error


def _places(shard: Path) -> Iterator[str]:
    stem = shard.name.partition(".")[0]
    yield f"{stem}_images"
    yield stem
    if number := re.search(r"shard_(\d+)", stem):
        yield number[1]


def _inside(folder: str, name: str) -> str:
    path = os.path.normpath(os.path.join(folder, name))
    if not path.startswith(folder.rstrip(os.sep) + os.sep):
        raise Dropped("image name leaves the folder", "pair")
    return path


def _file_size(path: str) -> int | None:
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # ValueError: a NUL or half a surrogate pair in the name
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def _hashed(url: str) -> Iterator[str]:
    address = url.encode(errors="surrogatepass")
    try:
        own = os.path.splitext(urlsplit(url).path)[1].lower()
    except ValueError:
        own = ""
    suffixes = dict.fromkeys([own, *_SUFFIXES] if own in IMAGE_SUFFIXES else _SUFFIXES)
    for digest in (hashlib.sha256(address).hexdigest(), hashlib.md5(address, usedforsecurity=False).hexdigest()):
        for suffix in suffixes:
            yield digest + suffix
