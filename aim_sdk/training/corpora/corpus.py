"""A corpus on disk: any document of it by file and number."""

from __future__ import annotations

import os
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cachetools import LRUCache

from aim_sdk.errors import ArtifactNotFoundError, ArtifactWriteError, InputError, MissingDependencyError
from aim_sdk.files.atomic import expanded
from aim_sdk.support.dependencies import imported
from aim_sdk.training.corpora.documents import Document, Pair
from aim_sdk.training.corpora.drops import Dropped, Drops
from aim_sdk.training.corpora.formats import CorpusSource, Format, sift
from aim_sdk.training.corpora.images import URL_MAPS, CorpusImages, Resolver
from aim_sdk.training.corpora.json_files import JsonShard
from aim_sdk.training.corpora.registry import AUTO, FORMATS, usable
from aim_sdk.training.corpora.shards import Shard
from aim_sdk.training.corpora.similarity import ClipSimilarity

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from aim_sdk.training.corpora.config import CorpusConfig

_OPEN = 4
"""Files whose index is kept."""
_LOOKED_AT = 5
"""Files whose beginning is read to recognise a format."""


class _OpenShards(LRUCache[int, Shard]):
    """The open files; if there are too many, the least recently read one is closed."""

    def popitem(self) -> tuple[int, Shard]:
        file, shard = super().popitem()
        shard.close()
        return file, shard


class Corpus:
    """The documents of a corpus, by file and number. `open_corpus` makes one.

    It can be pickled, and used on both sides of a fork: files are opened by the process that reads them.

    Args:
        config: what to leave out, and how to pair.
        format: how the files are read.
        files: the files, in the order that numbers them.
        resolve: finds images by their addresses; None: in the image folder.
    """

    def __init__(
        self, config: CorpusConfig, format: Format, files: Sequence[Path], resolve: Resolver | None = None
    ) -> None:
        self.config, self.format, self.files = config, format, tuple(files)
        root = expanded(config.path).absolute()
        self._root = root if root.is_dir() else root.parent
        self._images = CorpusImages(config.images, config.min_image_bytes, resolve)
        clip = config.clip_model, config.clip_pretrained, config.clip_device
        self._clip = ClipSimilarity(*clip) if config.similarity == "clip" else None
        self._sizes: dict[int, int] = {}
        self._damage: dict[int, str | None] = {}
        self._open = _OpenShards(_OPEN)
        self._process = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": _OpenShards(_OPEN)}

    def size(self, file: int) -> int:
        """How many documents a file has; it is opened once to find out."""
        if file not in self._sizes:
            self._shard(file)
        return self._sizes[file]

    def damage(self, file: int) -> Dropped | None:
        """Why a part of a file cannot be read; None if all of it can."""
        self.size(file)
        reason = self._damage[file]
        return None if reason is None else Dropped(reason, "file")

    def order(self, file: int, rng: np.random.Generator) -> NDArray[np.intp]:
        """A file's documents in an order that is drawn."""
        return self._shard(file).order(rng)

    def name(self, file: int) -> str:
        """A file's path below the corpus's folder."""
        return self.files[file].relative_to(self._root).as_posix()

    def document(self, file: int, index: int, drops: Drops) -> Document | None:
        """One document, or None if it cannot be used; ``drops`` counts why, and what is left out of it."""
        place, lost = f"{self.name(file)}:{index}", list[Dropped]()
        source = CorpusSource(self.config, self._images, self._clip, self.files[file])
        pairs: tuple[Pair, ...] = ()
        try:
            record = self._shard(file).read(index)
            pairs = sift(self.format, self.format.pairs(record, source), source, lost)
        except Dropped as whole:
            lost.append(whole)
        for item in lost:
            drops.add(item, place)
        return Document(place, pairs) if pairs else None

    def _shard(self, file: int) -> Shard:
        if self._process != os.getpid():  # the file positions that a parent process has opened are shared with it
            self._open, self._process = _OpenShards(_OPEN), os.getpid()
        if (shard := self._open.get(file)) is None:
            shard = self._open[file] = self._opened(self.files[file])
            self._sizes[file], self._damage[file] = len(shard), shard.damage
        return shard

    def _opened(self, path: Path) -> Shard:
        try:
            return self.format.open(path, self.config)
        except ArtifactWriteError:
            raise
        except OSError:
            return JsonShard(BytesIO(), (), "file unreadable")


def open_corpus(config: CorpusConfig, *, resolve: Resolver | None = None) -> Corpus:
    """Find a corpus's files and its format; no more than the beginning of some files is read.

    Args:
        config: where it is, and how it is used.
        resolve: takes an image's address and returns its path, the bytes of its file, or None. Worker processes need
            one that can be pickled. Default: addresses are looked up in the image folder.

    Raises:
        ArtifactNotFoundError: no such file or folder.
        InputError: there is no file of the format, no format or several are recognised, or a file cannot be read.
        MissingDependencyError: a package that reads the format is not installed.
    """
    path = expanded(config.path).absolute()
    if not path.exists():
        raise ArtifactNotFoundError(f"{path}: no such file or folder of a corpus.")
    if not (path.is_file() or path.is_dir()):
        raise InputError(f"{path}: a pipe or a device; expected a folder or a file of a corpus.")
    files = _files(path)
    if not files:
        raise InputError(f"{path}: an empty folder; expected the files of a corpus.")
    format = _recognised(path, files) if config.format == AUTO else FORMATS[config.format]()
    ours = files if path.is_file() else [file for file in files if file.name.endswith(format.suffixes)]
    if not ours:
        raise InputError(
            f"{path}: none of {len(files)} files has the format {format.name!r}, "
            f"whose file names end with {' or '.join(format.suffixes)}."
        )
    for module in format.requires(config):
        imported(module)
    return Corpus(config, format, ours, resolve)


def _recognised(path: Path, files: list[Path]) -> Format:
    found, missing, formats = list[Format](), None, usable()
    for format in formats:
        ours = [file for file in files if file.name.endswith(format.suffixes)][:_LOOKED_AT]
        try:
            if any(format.recognises(file) for file in ours):
                found.append(format)
        except MissingDependencyError as error:
            missing = error
    if len(found) == 1:
        return found[0]
    if found:
        names = " and ".join(format.name for format in found)
        raise InputError(f"{path}: holds files of {names}. Pass one of them, or format={found[0].name!r}.")
    if missing is not None:
        raise missing
    _refuse_unreadable(files[0])
    known = "\n".join(f"  {format.name}: {format.files}" for format in formats)
    raise InputError(
        f"{path}: no known format ({len(files)} files, such as {files[0].name}). Expected one of:\n{known}\n"
        "Next: if it is one of them and only its first files are damaged, pass `format`."
    )


def _refuse_unreadable(file: Path) -> None:
    try:
        file.open("rb").close()
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}).") from error


def _files(path: Path) -> list[Path]:
    """All files below a folder, in the order of their names; hidden ones and maps of addresses left out."""
    if path.is_file():
        return [path]
    found = []
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            file = Path(folder, name)
            ours = not name.startswith(".") and name not in URL_MAPS
            if ours and file.is_file():  # a pipe or a device may have no end
                found.append(file)
    return found
