"""The answers of a run while it runs: one line per batch, synced, so that a killed run loses one batch per process."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from aim_sdk.errors import InputError
from aim_sdk.evaluation.results import RESULT, Cell
from aim_sdk.files.atomic import write_atomic, writing
from aim_sdk.files.jobs import differences, kept_settings

_SETTINGS = "settings.json"
_MADE_WITH = "made_with.json"
KEPT = "The batches before are kept.\nNext: make room; the same command resumes."

Unit = tuple[Cell, int]
"""A batch of a cell: its number."""


class AnswerJournal:
    """Each process appends to its own file and reads those of all processes.

    Raises:
        InputError: the folder is another run's.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], rank: int) -> None:
        self._folder, self._file = folder, folder / f"answers-{rank}.jsonl"
        settings = folder / _SETTINGS
        wanted = json.loads(json.dumps(identity))
        kept = kept_settings(settings)
        if kept is not None:
            _check_same(settings, kept, wanted)
            return
        if folder.exists() and any((*folder.glob("answers-*.jsonl"), *folder.glob(RESULT))):
            raise InputError(f"{folder}: answers without {_SETTINGS}; expected a run's folder, or a new one.")
        write_atomic(settings, (json.dumps(wanted, indent=1) + "\n").encode())

    def made_with(self, made: Mapping[str, Any]) -> None:
        """Record what answers, once it is loaded: the files under a model's or a projector's name may change.

        Raises:
            InputError: the answers that are here are another model's or projector's.
        """
        file, wanted = self._folder / _MADE_WITH, json.loads(json.dumps(made))
        kept = kept_settings(file)
        if kept is None:
            write_atomic(file, (json.dumps(wanted, indent=1) + "\n").encode())
        else:
            _check_same(file, kept, wanted)

    def add(self, unit: Unit, content: Mapping[str, Any]) -> None:
        """Keep a batch; when this returns, it is on disk."""
        cell, number = unit
        line = json.dumps({"cell": cell.model_dump(), "number": number, **content}) + "\n"
        with writing(self._file, KEPT), self._file.open("ab") as file:
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())

    def read(self) -> dict[Unit, dict[str, Any]]:
        """All processes' batches. A line that was cut is left out, and its batch is answered again.

        If a batch was asked again, in whichever process, the line with fewer refusals counts.
        """
        found: dict[Unit, dict[str, Any]] = {}
        for path in sorted(self._folder.glob("answers-*.jsonl")):
            for record in _records(path):
                content, kept = record.model_extra or {}, found.get((record.cell, record.number))
                if kept is None or len(refused(content)) <= len(refused(kept)):
                    found[record.cell, record.number] = content
        return found

    def mend(self) -> None:
        """Drop the half line that a kill left at the end of this process's file, so that the next one starts afresh."""
        if not self._file.exists():
            return
        with writing(self._file):
            data = self._file.read_bytes()
            whole = data.rfind(b"\n") + 1
            if whole < len(data):
                os.truncate(self._file, whole)


def refused(record: Mapping[str, Any]) -> set[str]:
    """The queries of a batch that could not be answered; queries that are too long stay so, and are not among them."""
    return {p["item"] for p in record.get("predictions", ()) if p.get("refused") is not None}


class _JournalLine(BaseModel):
    """A line; what else it holds is the batch's answers."""

    model_config = ConfigDict(extra="allow")
    cell: Cell
    number: int


def _records(path: Path) -> Iterator[_JournalLine]:
    for line in path.read_bytes().split(b"\n")[:-1]:
        try:
            yield _JournalLine.model_validate(json.loads(line))
        except (ValueError, RecursionError):  # half a line, with others after it, or a line that is not ours
            continue


def _check_same(settings: Path, kept: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    if differing := differences({name: kept.get(name) for name in wanted}, wanted):
        changes = "\n".join(differing)
        raise InputError(
            f"{settings.parent}: holds a run with other settings:\n{changes}\n"
            "Next: choose another --output, or the same settings to resume that run."
        )
