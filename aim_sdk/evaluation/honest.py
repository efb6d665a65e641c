"""What a table alone would hide: where the simplest baseline wins, and why a query was not answered."""

from __future__ import annotations

import math
from collections.abc import Mapping

from aim_sdk.evaluation.results import Run

_SHOWN = 10


def beaten(runs: Mapping[str, Run]) -> list[str]:
    """One sentence for each run and task in which a vote of the nearest neighbours scores above AIM.

    Scores are compared at equal shots; "beats" means a higher number, whatever the errors: the sentence gives both.
    """
    return [sentence for name, run in runs.items() for sentence in _of(name if len(runs) > 1 else "", run)]


def _of(name: str, run: Run) -> list[str]:
    found = []
    for task in dict.fromkeys(score.task for score in run.scores):
        by_mode = {
            mode: {s.shots: s for s in run.scores if (s.task, s.mode) == (task, mode) and not math.isnan(s.value)}
            for mode in ("nearest", "aim")
        }
        both = [
            (k, by_mode["nearest"][k], by_mode["aim"][k]) for k in sorted(by_mode["aim"]) if k in by_mode["nearest"]
        ]
        wins = [f"{near.value:.1f} against {aim.value:.1f} at k={k}" for k, near, aim in both if near.value > aim.value]
        if wins:
            where = f"{name}, {task}" if name else task
            found.append(
                f"{where}: a vote of the nearest neighbours, without any LM call, beats AIM: {', '.join(wins)} "
                f"(n={both[0][2].queries})."
            )
    return found


def refusals(runs: Mapping[str, Run]) -> list[str]:
    """One sentence for each query that could not be answered, its length aside; at most ten, then how many more."""
    found = {
        f"{answers.cell.task}, query {prediction.item}: {prediction.refused}": None
        for run in runs.values()
        for answers in run.answers
        for prediction in answers.predictions
        if prediction.refused is not None
    }
    more = [f"... and {len(found) - _SHOWN} more refused queries."] if len(found) > _SHOWN else []
    return [*list(found)[:_SHOWN], *more]
