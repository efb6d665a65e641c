"""A whole bank as one file, and back."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from aim_sdk.bank import records
from aim_sdk.bank.binding import check_binding
from aim_sdk.bank.disk import DiskStore
from aim_sdk.bank.entries import row_of
from aim_sdk.bank.index import Row
from aim_sdk.bank.maintenance import Advance, live_records
from aim_sdk.bank.records import Record, Source
from aim_sdk.config import Binding
from aim_sdk.errors import ArtifactNotFoundError, ArtifactWriteError, CorruptArtifactError
from aim_sdk.files import atomic

_BATCH = 256
"""Entries of an import that are committed together."""


def export(store: DiskStore, path: Path, advance: Advance = lambda _: None) -> int:
    """Write all entries with their metadata and features to one file, whole or not at all; return its bytes.

    Raises:
        CorruptArtifactError: an entry is damaged.
        ArtifactWriteError: the file cannot be written.
    """
    entries = 0
    try:
        with atomic(path) as file:
            file.write(store.opening())
            for what, data in live_records(store, advance):
                file.write(data)
                entries += isinstance(what, Row)
            file.write(records.encode({"end": entries}))
            size = file.tell()
    except OSError as error:
        raise ArtifactWriteError(f"{path}: cannot be written ({error.strerror or error}).") from error
    return size


def binding_of(path: Path) -> tuple[Binding, bool, bool]:
    """What an exported bank depends on, and whether it keeps readings and images.

    Raises:
        ArtifactNotFoundError: no such file.
        CorruptArtifactError: not an exported bank.
    """
    with _opened(path) as (source, _):
        header = _opening(source, path)
    return Binding.model_validate(header["binding"]), bool(header["keep_readings"]), bool(header["keep_images"])


def import_(store: DiskStore, path: Path, advance: Advance = lambda _: None) -> int:
    """Add the entries of an exported bank that are not here yet, behind those that are; return how many.

    The file is checked whole before the first one is added. Interrupted, the same call goes on.

    Raises:
        ArtifactNotFoundError: no such file.
        CorruptArtifactError: it is cut or altered, or no exported bank.
        FingerprintError: it was made with another backbone, projector or prompt format.
    """
    with _opened(path) as (source, size):
        binding = Binding.model_validate(_opening(source, path)["binding"])
        check_binding(binding, store.binding, f"{path}: this exported bank", f"the bank {store.path}")
        _check_whole(source, size, path)
        before, start = len(store), store.next_position()
        entries = (record for record in records.scan(source, size, str(path)) if isinstance(record, Record))
        made = (_moved(source, record, path, start) for record in entries if "key" in record.header)
        while batch := list(islice(made, _BATCH)):
            store.put(batch, features={})
            advance(len(batch))
        for record in records.scan(source, size, str(path)):
            if isinstance(record, Record) and "features" in record.header:
                vectors = records.read_part(source, record, "vectors", str(path)).numpy()
                store.add_features(record.header["features"], record.header["keys"], vectors)
    return len(store) - before


def _moved(source: Source, record: Record, path: Path, start: int) -> tuple[Row, bytes]:
    """An exported entry behind those of this bank."""
    header = {**record.header, "position": start + int(record.header["position"])}
    data = records.rewrite(source, record, str(path), {"position": header["position"]})
    return row_of(header, len(data), int(header["parts"]["fused"]["shape"][0])), data


def _check_whole(source: Source, size: int, path: Path) -> None:
    entries, ended = 0, False
    for record in records.scan(source, size, str(path)):
        if isinstance(record, CorruptArtifactError):
            raise record
        records.check_record(source, record, str(path))
        entries += "key" in record.header
        ended = record.header.get("end") == entries
    if not ended:
        raise CorruptArtifactError(f"{path}: cut: it does not end as an exported bank does. Copy or export it again.")


def _opening(source: Source, path: Path) -> Mapping[str, Any]:
    try:
        header = records.read_record(source, 0, str(path)).header
    except CorruptArtifactError as error:
        raise CorruptArtifactError(f"{path}: not an exported bank, or its beginning is damaged.") from error
    if header.get("bank") != 1:
        raise CorruptArtifactError(
            f"{path}: bank format {header.get('bank')!r}, but this aim-icl reads 1. Run `pip install -U aim-icl`."
        )
    return header


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Source, int]]:
    try:
        handle = os.open(path, os.O_RDONLY)
        size = os.fstat(handle).st_size
    except OSError as error:
        raise ArtifactNotFoundError(f"{path}: cannot be read ({error.strerror}).") from error
    try:
        if path.is_dir():
            raise ArtifactNotFoundError(f"{path}: a folder; expected the file that `aim-icl bank export` wrote.")
        yield lambda offset, length: os.pread(handle, length, offset), size
    finally:
        os.close(handle)
