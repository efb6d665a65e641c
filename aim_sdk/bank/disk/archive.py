"""A whole bank as one file, and back. The file is untrusted: all of it is checked before anything is added."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from pydantic import ValidationError

from aim_sdk.bank.binding import check_binding, key_of
from aim_sdk.bank.disk.compaction import live_records
from aim_sdk.bank.disk.entries import EXPORT, Entry, Opening, VectorsHeader, feature_record, header_of, row_of
from aim_sdk.bank.disk.folder import INDEX
from aim_sdk.bank.disk.reading import vectors_at
from aim_sdk.bank.disk.rows import Row
from aim_sdk.bank.disk.snapshot import snapshot
from aim_sdk.bank.disk.store import DiskStore
from aim_sdk.config import Binding
from aim_sdk.errors import ArtifactNotFoundError, ArtifactWriteError, CorruptArtifactError, InputError, problem
from aim_sdk.files import records
from aim_sdk.files.atomic import atomic, writing
from aim_sdk.files.records import ByteSource, Record
from aim_sdk.support.progress import Advance
from aim_sdk.types import Demonstration, Matrix

_BATCH = 256
"""Entries of an import that are committed together."""


def export(store: DiskStore, path: Path, advance: Advance = lambda _: None) -> int:
    """Write all entries with their metadata and features to one file, whole or not at all; return its bytes.

    Raises:
        CorruptArtifactError: an entry is damaged.
        ArtifactWriteError: the file cannot be written.
    """
    entries = 0
    opening = store.log.opening.model_copy(update={"bank": EXPORT, "id": ""})
    with writing(path):
        _check_target(path)
        with atomic(path) as file:
            file.write(opening.record())
            with snapshot(store) as now:
                for what, data in live_records(now, advance):
                    file.write(data)
                    entries += isinstance(what, Row)
            file.write(records.encode({"end": entries}))
            size = file.tell()
    return size


def binding_of(path: Path) -> tuple[Binding, bool, bool]:
    """What an exported bank depends on, and whether it keeps readings and images.

    Raises:
        ArtifactNotFoundError: no such file.
        CorruptArtifactError: not an exported bank.
    """
    with _opened(path) as (source, _):
        opening = _opening(source, path)
    return opening.binding, opening.keep_readings, opening.keep_images


def check(path: Path) -> None:
    """Look at every record of an exported bank.

    Raises:
        ArtifactNotFoundError: no such file.
        CorruptArtifactError: it is cut, altered or malformed, or not an exported bank.
    """
    with _opened(path) as (source, size):
        _Content(source, str(path), _opening(source, path).binding, {}).read(size)


def import_(store: DiskStore, path: Path, advance: Advance = lambda _: None) -> int:
    """Add the entries of an exported bank that are not here yet, after those that are; return how many.

    The file is checked whole before the first one is added. Interrupted, the same call resumes.

    Raises:
        ArtifactNotFoundError: no such file.
        CorruptArtifactError: it is cut, altered or malformed, or not an exported bank.
        FingerprintError: it was made with another backbone, projector or prompt format.
    """
    with _opened(path) as (source, size):
        opening = _opening(source, path)
        check_binding(opening.binding, store.binding, f"{path}: this exported bank", f"the bank {store.path}")
        found = _Content(
            source,
            str(path),
            opening.binding,
            {name: _width(store, name) for name in {name for name, *_ in store.log.index.features()}},
        )
        found.read(size)
        before, start = len(store), store.next_position()
        entries = iter(enumerate(found.entries, start))
        while placed := list(islice(entries, _BATCH)):
            batch = [record for _, record in placed]
            made = [found.moved(record, store.binding, position) for position, record in placed]
            features = {name: feature_record(name, *rows) for name, rows in found.vectors(batch, store.binding).items()}
            store.put(made, features=features)
            advance(len(batch))
    return len(store) - before


@dataclass
class _Content:
    """A checked export: where its entries are, and of each name where an entry's vector is."""

    source: ByteSource
    where: str
    binding: Binding
    widths: dict[str, int]
    """Of the vectors that the bank already has, in bytes, by name."""
    entries: list[Record] = field(default_factory=list)
    places: dict[str, dict[str, tuple[int, int]]] = field(default_factory=dict)
    """Offset and bytes of a vector, by name and key."""

    def read(self, size: int) -> None:
        """Check every record.

        Raises:
            CorruptArtifactError: one is not as a bank writes it.
        """
        first, ended, keys = True, False, set[str]()
        for record in records.scan(self.source, size, self.where):
            if isinstance(record, CorruptArtifactError):
                raise record
            if ended:
                raise CorruptArtifactError(f"{self.where}: a record follows the end.")
            if "key" in record.header:
                keys.add(self._check_entry(record))
                self.entries.append(record)
            elif "features" in record.header:
                self._check_vectors(record, keys)
            elif "end" in record.header:
                ended = record.header["end"] == len(self.entries)
            elif not first:
                raise CorruptArtifactError(
                    f"{self.where}: the record at byte {record.offset} does not belong in an export."
                )
            first = False
        if not ended:
            raise CorruptArtifactError(
                f"{self.where}: cut off: it does not end as an exported bank does. Copy or export it again."
            )
        if len(keys) < len(self.entries):
            raise CorruptArtifactError(f"{self.where}: it holds a demonstration twice.")

    def moved(self, record: Record, binding: Binding, position: int) -> tuple[Row, bytes]:
        """An entry as one of another bank with the same backbone, projector and format."""
        entry = header_of(record, Entry, self.where)
        changes = {"key": _key(entry, binding), "position": position}
        data = records.rewrite(self.source, record, self.where, changes)
        return row_of(entry.model_copy(update=changes), Record(0, record.header, 0, len(data))), data

    def vectors(self, batch: list[Record], binding: Binding) -> dict[str, tuple[list[str], Matrix]]:
        """Keys and vectors of a batch, by name."""
        found: dict[str, tuple[list[str], Matrix]] = {}
        for name, places in self.places.items():
            held = [record for record in batch if record.header["key"] in places]
            if held:
                rows = [self.source(*places[record.header["key"]]) for record in held]
                keys = [_key(header_of(record, Entry, self.where), binding) for record in held]
                found[name] = keys, np.stack([np.frombuffer(row, np.float32) for row in rows])
        return found

    def _check_entry(self, record: Record) -> str:
        entry, wrong = header_of(record, Entry, self.where), ""
        try:
            if entry.key != _key(entry, self.binding):
                wrong = "its key is not the hash of its content"
        except InputError as error:
            wrong = str(error)
        if entry.image and "\0" in entry.image:
            wrong = "the path of its image holds a NUL"
        sizes = self.binding.fingerprint
        widths = {"fused": sizes.embedding_size, "hidden": sizes.hidden_size * len(self.binding.layers)}
        for name, part in entry.parts.items():
            tensor = records.read_part(self.source, record, name, self.where)
            if name in widths and (part.shape[1] != widths[name] or not torch.isfinite(tensor).all()):
                wrong = f"{name!r} is not of finite numbers, {widths[name]} per token"
            if name == "token_ids" and tensor.min() < 0:
                wrong = "token ids that are not valid"
        if wrong:
            raise CorruptArtifactError(f"{self.where}: the demonstration at byte {record.offset}: {wrong}.")
        return entry.key

    def _check_vectors(self, record: Record, known: set[str]) -> None:
        header = header_of(record, VectorsHeader, self.where)
        vectors = records.read_part(self.source, record, "vectors", self.where)
        if not torch.isfinite(vectors).all() or not known.issuperset(header.keys):
            raise CorruptArtifactError(
                f"{self.where}: the vectors at byte {record.offset} do not belong to its entries."
            )
        name, width = header.features, 4 * vectors.shape[1]
        if self.widths.setdefault(name, width) != width:
            raise CorruptArtifactError(
                f"{self.where}: the vectors {name!r} at byte {record.offset} have {vectors.shape[1]} numbers each, and "
                f"others {self.widths[name] // 4}."
            )
        self.places.setdefault(name, {}).update(
            (key, (record.payload + place * width, width)) for place, key in enumerate(header.keys)
        )


def _check_target(path: Path) -> None:
    """Refuse to replace a file that is not an exported bank.

    Raises:
        ArtifactWriteError: it is something else, or its name is not valid.
    """
    try:
        os.lstat(path)
    except ValueError as error:
        raise ArtifactWriteError(f"{path}: cannot be written ({error}).") from error
    except OSError:
        pass  # there is nothing yet; other problems are reported when it is written
    if any(path.absolute().parent.glob(f"{INDEX}*")):
        raise ArtifactWriteError(f"{path}: is inside a bank's folder. Next: export to another folder.")
    if path.is_file() and path.stat().st_size:
        try:
            binding_of(path)
        except CorruptArtifactError as error:
            raise ArtifactWriteError(
                f"{path}: an existing file that is not an exported bank; it was not changed. Next: choose another name."
            ) from error


def _width(store: DiskStore, name: str) -> int:
    """The bytes of one of a bank's vectors."""
    vectors = vectors_at(store.log.segments, store.log.index.features(name)[-1:])
    return next(iter(vectors.values())).nbytes


def _key(entry: Entry, binding: Binding) -> str:
    return key_of(binding, entry.digest, Demonstration(entry.image or b"", entry.text, entry.answer, entry.metadata))


def _opening(source: ByteSource, path: Path) -> Opening:
    try:
        header = records.read_record(source, 0, str(path)).header
    except CorruptArtifactError as error:
        raise CorruptArtifactError(f"{path}: not an exported bank, or its beginning is damaged.") from error
    if header.get("bank") != EXPORT:
        raise CorruptArtifactError(
            f"{path}: an exported bank of format {header.get('bank')!r}, but this aim-icl reads {EXPORT}. "
            "Next: install a newer aim-icl."
        )
    try:
        return Opening.model_validate(header)
    except ValidationError as error:
        raise CorruptArtifactError(f"{path}: its beginning is malformed ({problem(error)}).") from error


@contextmanager
def _opened(path: Path) -> Iterator[tuple[ByteSource, int]]:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        status = os.fstat(handle)
    except (OSError, ValueError) as error:
        raise ArtifactNotFoundError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}).") from error
    try:
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no file"
            raise ArtifactNotFoundError(f"{path}: {kind}; expected the file that `aim-icl bank export` wrote.")
        yield lambda offset, length: _pread(handle, length, offset, path), status.st_size
    finally:
        os.close(handle)


def _pread(handle: int, length: int, offset: int, path: Path) -> bytes:
    try:
        return os.pread(handle, length, offset)
    except OSError as error:
        raise records.UnreadableError(
            f"{path}: cannot be read ({error.strerror or error}). Next: try again."
        ) from error
