"""What a table alone would hide: where the simplest baseline wins, and why a query was not answered."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from aim_sdk.evaluation.paired import NORMAL_95, Difference, difference, holm
from aim_sdk.evaluation.results import Run

_SHOWN = 10
_LEVEL: Final = 0.05


def beaten(runs: Mapping[str, Run]) -> list[str]:
    """One sentence for each run and task in which a vote of the nearest neighbours scores above AIM.

    At equal shots, and "beats" only where the paired difference is beyond its error (p < 0.05, Holm's correction over
    the numbers of shots; without scores per query, 1.96 standard errors).
    """
    return [sentence for name, run in runs.items() for sentence in _of(name if len(runs) > 1 else "", run)]


def _of(name: str, run: Run) -> list[str]:
    found = []
    for task in dict.fromkeys(score.task for score in run.scores):
        above = [d for d in _differences(run, task) if d.second > d.first]
        where = f"{name}, {task}" if name else task
        won, even = [d for d in above if _is_beyond(d)], [d for d in above if not _is_beyond(d)]
        if won:
            found.append(f"{where}: a vote of the nearest neighbours, without any LM call, beats AIM: {_listed(won)}.")
        if even:
            found.append(
                f"{where}: a vote of the nearest neighbours scores above AIM, but the difference is within its error: "
                f"{_listed(even)}."
            )
    return found


def _differences(run: Run, task: str) -> list[Difference]:
    """Nearest neighbours minus AIM, by the number of shots."""
    near, aim = (
        {s.shots: s for s in run.scores if (s.task, s.mode) == (task, mode) and not math.isnan(s.value)}
        for mode in ("nearest", "aim")
    )
    return holm([difference(run, aim[k], run, near[k]) for k in sorted(aim.keys() & near.keys())])


def _is_beyond(found: Difference) -> bool:
    if found.p_holm is None:
        return abs(found.difference) > NORMAL_95 * found.standard_error  # False if there is no error
    return found.p_holm < _LEVEL


def _listed(found: Sequence[Difference]) -> str:
    return ", ".join(_said(d) for d in found)


def _said(d: Difference) -> str:
    error = "" if math.isnan(d.standard_error) else f" ± {d.standard_error:.1f}"
    p = "" if d.p_holm is None else f", p={d.p_holm:.2g}"
    return (
        f"{d.second:.1f} against {d.first:.1f} at k={d.shots[1]} (difference {d.difference:+.1f}{error}{p}, "
        f"n={d.queries})"
    )


def refusals(runs: Mapping[str, Run]) -> list[str]:
    """One sentence for each query refused for a reason other than its length; at most ten, then how many more."""
    found = {
        f"{answers.cell.task}, query {prediction.item}: {prediction.refused}": None
        for run in runs.values()
        for answers in run.answers
        for prediction in answers.predictions
        if prediction.refused is not None
    }
    more = [f"... and {len(found) - _SHOWN} more refused queries."] if len(found) > _SHOWN else []
    return [*list(found)[:_SHOWN], *more]
