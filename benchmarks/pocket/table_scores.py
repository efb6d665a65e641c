"""The answers of a table's runs by row, task, shots and trial: their means, paired gains and shares of a gap.

A row is a mode of a run ("interleaved", "shipped", "shipped without images"). Trainings of one recipe (``distilled-1``,
``distilled-2``, ...) are also one row together, ``distilled``: each trial counts once, with the mean of its answers.
"""

from __future__ import annotations

import math
import re
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from aim_sdk.support.clusters import clustered_error
from aim_sdk.types import Mode
from benchmarks.pocket.table_rows import KeptRow
from benchmarks.pocket.table_runs import TableSettings

CONTROL: Final = " without images"
OF_THE_BACKBONE: Final = ("zero-shot", "text-only", "interleaved", "nearest")

Trial = tuple[str, str]
"""A task and a trial of it."""
Scores = Mapping[Trial, float]


@dataclass(frozen=True)
class Estimate:
    """A mean over trials with its standard error."""

    value: float
    error: float
    n: int

    def as_json(self) -> dict[str, Any]:
        """Rounded to what is known."""
        error = None if math.isnan(self.error) else round(self.error, 4)
        return {"value": round(self.value, 4), "standard_error": error, "n": self.n}


class Answers:
    """The scores of all rows, each from 0 to 1.

    Args:
        scores: by row, shots and trial.
        runs: where they come from.
    """

    def __init__(
        self, scores: Mapping[str, Mapping[int, Mapping[Trial, float]]], runs: Sequence[dict[str, Any]] = ()
    ) -> None:
        self.scores = {row: {k: dict(found) for k, found in by_shots.items()} for row, by_shots in scores.items()}
        self.runs, self.trainings = runs, self._together()

    @classmethod
    def load(cls, table: TableSettings) -> Self:
        """Read the rows that are finished."""
        scores: dict[str, dict[int, dict[Trial, float]]] = defaultdict(lambda: defaultdict(dict))
        runs = []
        for name, part in table.parts.items():
            for row in table.rows_of(part):
                if (path := table.kept_row(name, row)).exists():
                    kept = KeptRow.load(path)
                    runs.append(kept.origin)
                    for mode, by_shots in kept.right.items():
                        for shots, by_task in by_shots.items():
                            found = {
                                (task, trial): float(one) for task in by_task for trial, one in by_task[task].items()
                            }
                            scores[row_of(row, mode)][shots] |= found
        return cls(scores, runs)

    def _together(self) -> dict[str, list[str]]:
        """Add the mean of the trainings of one recipe where all of them answered; return which there are."""
        recipes: dict[str, list[str]] = defaultdict(list)
        for row in self.scores:
            if match := re.fullmatch(rf"(.+?)-\d+({CONTROL})?", row):
                recipes[match[1] + (match[2] or "")].append(row)
        for recipe, rows in recipes.items():
            self.scores[recipe] = {}
            for shots in sorted({k for row in rows for k in self.scores[row]}):
                having = [found for row in rows if (found := self.scores[row].get(shots))]
                both = [trial for trial in having[0] if all(trial in found for found in having)]
                self.scores[recipe][shots] = {t: statistics.fmean(found[t] for found in having) for t in both}
        return dict(recipes)

    def mean(self, row: str, shots: int, task: str | None = None) -> Estimate | None:
        """A row's share of right answers; None if it was not asked."""
        return mean(_of(self._asked(row, shots), task))

    def gain(self, row: str, over: str, shots: int, task: str | None = None) -> Estimate | None:
        """One row minus another, paired by trial."""
        return mean(_of(_minus(self._asked(row, shots), self._asked(over, shots)), task))

    def closed(self, row: str, start: str, goal: str, shots: int, task: str | None = None) -> Estimate | None:
        """The share of the gap between ``start`` and ``goal`` that a row closes; None if the gap is within 2 errors."""
        begun, aim, end = (self._asked(one, shots) for one in (start, row, goal))
        gaps, gains = _of(_minus(end, begun), task), _of(_minus(aim, begun), task)
        gap, both = mean(gaps), gaps.keys() & gains.keys()
        if gap is None or not both or not gap.value > 2 * gap.error:
            return None
        size = statistics.fmean(gaps[trial] for trial in both)
        share = statistics.fmean(gains[trial] for trial in both) / size
        rest = mean({trial: (gains[trial] - share * gaps[trial]) / size for trial in both})  # a ratio of two means
        return None if rest is None else Estimate(share, rest.error, len(both))

    def shots(self) -> list[int]:
        """All numbers of shots but none."""
        return sorted({k for by_shots in self.scores.values() for k, found in by_shots.items() if found and k})

    def _asked(self, row: str, shots: int) -> Scores:
        by_shots = self.scores.get(row, {})
        return by_shots.get(0 if row == "zero-shot" else shots, {})


def row_of(name: str, mode: Mode) -> str:
    """The row that a run's mode is."""
    if mode in OF_THE_BACKBONE:
        return mode
    return name + (CONTROL if mode == "no-image" else "")


def mean(scores: Scores) -> Estimate | None:
    """The mean over trials; each stands for itself."""
    if not scores:
        return None
    values = list(scores.values())
    return Estimate(statistics.fmean(values), clustered_error(values, range(len(values))), len(values))


def _minus(one: Scores, other: Scores) -> Scores:
    return {trial: score - other[trial] for trial, score in one.items() if trial in other}


def _of(scores: Scores, task: str | None) -> Scores:
    return scores if task is None else {trial: score for trial, score in scores.items() if trial[0] == task}
