"""A finished row of pocket's table as it is kept: which trials it got right, and what answered them.

It is a small file in the repository, where a run's folder is made again: so a table can be made on several machines.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from aim_sdk.evaluation.results import Prediction, Question, Run
from aim_sdk.files.atomic import write_atomic
from aim_sdk.types import Mode


class KeptRow(BaseModel):
    """One row of one part."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    part: str
    row: str
    projector: dict[str, Any]
    date: str
    revision: str | None
    computed: dict[str, Any]
    machine: dict[str, Any]
    versions: dict[str, Any]
    right: dict[Mode, dict[int, dict[str, dict[str, int]]]]
    """By mode, shots, task and trial: 1 or 0."""

    @classmethod
    def of(cls, part: str, row: str, run: Run) -> KeptRow:
        """What is kept of a run."""
        found: dict[Mode, dict[int, dict[str, dict[str, int]]]] = defaultdict(lambda: defaultdict(dict))
        for answers in run.answers:
            cell, asked = answers.cell, run.queries[answers.cell.task]
            task = cell.task.removeprefix("pocket-")
            found[cell.mode][cell.shots][task] = {p.item: int(right(p, asked[p.item])) for p in answers.predictions}
        origin = run.model_dump(
            mode="json", include={"projector", "date", "revision", "computed", "machine", "versions"}
        )
        return cls(part=part, row=row, right={mode: dict(by_shots) for mode, by_shots in found.items()}, **origin)

    @classmethod
    def load(cls, path: Path) -> KeptRow:
        """Read one."""
        return cls.model_validate_json(path.read_bytes())

    def save(self, path: Path) -> None:
        """Write it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, self.model_dump_json().encode() + b"\n")

    @property
    def origin(self) -> dict[str, Any]:
        """Where its answers come from."""
        return self.model_dump(exclude={"right"})


def right(prediction: Prediction, question: Question) -> float:
    """Whether the right choice was taken, to the letter: in one answer style only its capital tells it from another.

    The suite's own score of an exact match does not look at case.
    """
    if prediction.answer is None:
        raise RuntimeError(f"trial {prediction.item} was not answered ({prediction.refused or 'it is too long'}).")
    return float(prediction.answer in question.references)
