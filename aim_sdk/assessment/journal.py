"""The outcomes of an assessment while it runs: one line each, synced batch after batch, so that a kill loses one batch.

The file's name holds a hash of all that decides an answer, so another bank, model or question has another file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from aim_sdk.assessment.asking import Outcome
from aim_sdk.assessment.candidates import Candidate
from aim_sdk.files.atomic import writing

OUTCOMES = "outcomes-*.jsonl"
"""The names of the files."""

Unit = tuple[Candidate, str, str | None]
"""A setting, an item's name, and the key of the demonstration that was taken out, if any."""


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    setting: Candidate
    item: str
    without: str | None
    outcome: Outcome


class Journal:
    """Outcomes by unit; in memory, or also in a folder.

    Args:
        folder: where to keep them; None keeps them as long as the object lives.
        identity: what decides an answer besides its unit, as JSON has it.
    """

    def __init__(self, folder: Path | None, identity: Mapping[str, Any]) -> None:
        self._choices: Sequence[str] | None = identity["choices"]
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
        self._file = None if folder is None else folder / f"outcomes-{digest}.jsonl"
        self._found: dict[Unit, Outcome] = {}
        if self._file is not None and self._file.exists():
            self._read(self._file)

    def __getitem__(self, unit: Unit) -> Outcome:
        return self._found[unit]

    def __contains__(self, unit: Unit) -> bool:
        return unit in self._found

    def add(self, made: Sequence[tuple[Unit, Outcome]]) -> None:
        """Keep outcomes; when this returns, they are on disk.

        Raises:
            ArtifactWriteError: the disk is full, for example; what was kept before stays.
        """
        self._found |= dict(made)
        if self._file is None:
            return
        lines = [
            _Line(setting=setting, item=item, without=without, outcome=outcome).model_dump_json() + "\n"
            for (setting, item, without), outcome in made
        ]
        with writing(self._file), self._file.open("ab") as file:
            file.write("".join(lines).encode())
            file.flush()
            os.fsync(file.fileno())

    def _read(self, path: Path) -> None:
        """Take whole lines; half a line, which a kill left, is cut off."""
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            with writing(path):
                os.truncate(path, whole)
        for line in data[:whole].splitlines():
            try:
                one = _Line.model_validate_json(line)
            except ValidationError:
                continue
            if self._whole(one.outcome):  # what was refused is asked again
                self._found[one.setting, one.item, one.without] = one.outcome

    def _whole(self, outcome: Outcome) -> bool:
        """Whether it is an answer of this assessment."""
        if self._choices is None or outcome.answer is None:
            return outcome.answer is not None
        found = outcome.probabilities
        return outcome.answer in self._choices and found is not None and len(found) == len(self._choices)
