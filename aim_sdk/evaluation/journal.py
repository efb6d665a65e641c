"""The answers of a run while it goes on: a line a batch, synced, so that a killed run loses one batch a process."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from aim_sdk.errors import ArtifactWriteError, InputError
from aim_sdk.evaluation.results import Cell
from aim_sdk.files import write_atomic

_SETTINGS = "settings.json"

Unit = tuple[Cell, int]
"""A batch of a cell: its number."""


class Journal:
    """Each process appends to a file of its own and reads everybody's.

    Raises:
        InputError: the folder is another run's.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], rank: int) -> None:
        self._folder, self._file = folder, folder / f"answers-{rank}.jsonl"
        settings = folder / _SETTINGS
        wanted = json.loads(json.dumps(identity))
        if settings.exists():
            _check_same(settings, wanted)
            return
        if folder.exists() and any(folder.glob("answers-*.jsonl")):
            raise InputError(f"{folder}: answers without {_SETTINGS}; expected a run's folder, or a new one.")
        try:
            write_atomic(settings, (json.dumps(wanted, indent=1) + "\n").encode())
        except OSError as error:
            raise ArtifactWriteError(f"{folder}: cannot be written ({error.strerror}).") from error

    def add(self, unit: Unit, content: Mapping[str, Any]) -> None:
        """Keep a batch; when this returns, it is on disk."""
        cell, number = unit
        line = json.dumps({"cell": cell.model_dump(), "number": number, **content}) + "\n"
        try:
            with self._file.open("ab") as file:
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ArtifactWriteError(
                f"{self._file}: cannot be written ({error.strerror}); the batches before are safe."
            ) from error

    def read(self) -> dict[Unit, dict[str, Any]]:
        """All processes' batches. A line that was cut is left out: its batch is answered anew."""
        found: dict[Unit, dict[str, Any]] = {}
        for path in sorted(self._folder.glob("answers-*.jsonl")):
            for record in _records(path):
                found[Cell.model_validate(record.pop("cell")), record.pop("number")] = record
        return found

    def mend(self) -> None:
        """Drop the half line that a kill left at the end of this process's file, so that the next one starts afresh."""
        if not self._file.exists():
            return
        data = self._file.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.truncate(self._file, whole)


def _records(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_bytes().split(b"\n")[:-1]:
        try:
            yield json.loads(line)
        except ValueError:  # half a line, with others behind it
            continue


def _check_same(settings: Path, wanted: Mapping[str, Any]) -> None:
    try:
        kept = json.loads(settings.read_bytes())
        differing = [name for name in wanted if kept[name] != wanted[name]]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{settings}: not the settings of a run ({error!r}); choose another --output.") from error
    if differing:
        changes = "\n".join(f"  {name}: {kept[name]!r} there, {wanted[name]!r} now" for name in differing)
        raise InputError(
            f"{settings.parent}: holds a run with other settings:\n{changes}\n"
            "Next: choose another --output, or the same settings to go on with that run."
        )
