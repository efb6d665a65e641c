"""Compares two runs, or two modes, query by query."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from rich.table import Table

from aim_sdk.clusters import clustered_error
from aim_sdk.errors import InputError, did_you_mean
from aim_sdk.evaluation.results import Prediction, Run, Score
from aim_sdk.modes import LABELS
from aim_sdk.types import Mode

_FLIPS: Final = 10_000
_ALL_FLIPS: Final = 12
"""Up to so many queries that differ, all their signs are tried."""

Modes = tuple[Mode, Mode]


@dataclass(frozen=True, slots=True)
class Difference:
    """The second minus the first, for one task and number of shots."""

    task: str
    modes: Modes
    shots: tuple[int, int]
    metric: str
    first: float
    second: float
    difference: float
    standard_error: float
    """Clustered by query where answers have scores of their own; else the two runs' errors as if independent."""
    p: float | None
    """Two-sided, by a sign-flip permutation test over queries; None where answers have no scores of their own."""
    p_holm: float | None
    """Corrected for all differences that are reported together (Holm)."""
    pairs: int
    """Answers that are compared."""
    better: int
    worse: int
    """Answers of the second that score higher, lower."""
    same_demonstrations: bool
    """Whether both were shown the same ones."""


def compare(first: Run, second: Run, *, modes: Modes | None = None) -> list[Difference]:
    """Compare what both runs have: equal tasks, modes and shots; or, with ``modes``, one mode to another.

    Zero-shot answers are compared with any number of shots of the other mode.

    Raises:
        InputError: nothing can be paired, or the runs were asked by different protocols or metrics.
    """
    if first.protocol != second.protocol:
        raise InputError(
            f"the runs were asked by different protocols ({first.protocol['name']}, {second.protocol['name']}, or "
            "other settings of one): their scores are not comparable."
        )
    pairs = [
        (a, b)
        for a in first.scores
        for b in second.scores
        if a.task == b.task and _matches(a, b, modes) and not a.too_long and not b.too_long
    ]
    if not pairs:
        raise InputError(
            f"nothing to compare: the first run has {_inventory(first)}; the second {_inventory(second)}. Expected the "
            "same tasks, modes and shots in both, or --modes FIRST,SECOND; cells with too long prompts have no number."
        )
    return _holm([_difference(first, a, second, b) for a, b in pairs])


def modes_of(names: Sequence[str]) -> Modes:
    """Two modes by their names.

    Raises:
        InputError: they are not two, or one does not exist.
    """
    for name in names:
        if name not in LABELS:
            raise InputError(f"no mode {name!r}.{did_you_mean(name, LABELS)} Expected two of: {', '.join(LABELS)}.")
    if len(names) != 2:
        raise InputError(f"modes {', '.join(names)}: expected two, as in text-only,aim.")
    first, second = (next(mode for mode in LABELS if mode == name) for name in names)
    return first, second


def table(differences: Sequence[Difference]) -> Table:
    """Return the differences for the console."""
    made = Table(
        *("task", "compared", "first", "second", "difference", "p", "p (Holm)", "better/worse of pairs"),
        title="second − first, paired by query; standard errors clustered by query",
        title_justify="left",
        box=None,
        header_style="bold",
    )
    for d in differences:
        made.add_row(
            d.task,
            _compared(d),
            f"{d.first:.1f}",
            f"{d.second:.1f}",
            f"{d.difference:+.1f} ± {d.standard_error:.1f}",
            _p(d.p),
            _p(d.p_holm),
            f"{d.better}/{d.worse} of {d.pairs}" + ("" if d.same_demonstrations else " (other demonstrations)"),
        )
    return made


def _matches(a: Score, b: Score, modes: Modes | None) -> bool:
    if modes is None:
        return (a.mode, a.shots) == (b.mode, b.shots)
    return (a.mode, b.mode) == modes and (a.shots == b.shots or "zero-shot" in modes)


def _difference(first: Run, a: Score, second: Run, b: Score) -> Difference:
    if a.metric != b.metric:
        raise InputError(f"task {a.task!r} is scored by {a.metric} in one run and by {b.metric} in the other.")
    ours, theirs = _by_query(first, a), _by_query(second, b)
    both = _paired(a, ours, b, theirs)
    found = Difference(
        task=a.task,
        modes=(a.mode, b.mode),
        shots=(a.shots, b.shots),
        metric=a.metric,
        first=a.value,
        second=b.value,
        difference=b.value - a.value,
        standard_error=math.hypot(a.standard_error, b.standard_error),
        p=None,
        p_holm=None,
        pairs=len(both),
        better=0,
        worse=0,
        same_demonstrations=all(x.demonstrations == y.demonstrations for (_, x), (_, y) in both.values()),
    )
    if any(math.isnan(x) or math.isnan(y) for (x, _), (y, _) in both.values()):
        return found
    changes = {key: y - x for key, ((x, _), (y, _)) in both.items()}
    queries = [query for query, _ in changes]
    sums: dict[str, float] = defaultdict(float)
    for (query, _), change in changes.items():
        sums[query] += change
    return replace(
        found,
        difference=statistics.fmean(changes.values()),
        standard_error=clustered_error(list(changes.values()), queries),
        p=permutation_p(list(sums.values())),
        better=sum(change > 0 for change in changes.values()),
        worse=sum(change < 0 for change in changes.values()),
    )


def _by_query(run: Run, score: Score) -> dict[int, dict[str, Prediction]]:
    return {
        cell.cell.seed: {p.item: p for p in cell.predictions}
        for cell in run.answered(score.task, score.mode, score.shots)
    }


def _paired(
    a: Score, ours: Mapping[int, Mapping[str, Prediction]], b: Score, theirs: Mapping[int, Mapping[str, Prediction]]
) -> dict[tuple[str, int], tuple[tuple[float, Prediction], tuple[float, Prediction]]]:
    """Pair answers by query and seed; what is asked once (zero-shot) goes with every seed of the other."""
    seeds = sorted(ours.keys() | theirs.keys())
    lone = {id(run): next(iter(run)) for run in (ours, theirs) if len(run) == 1}
    found: dict[tuple[str, int], tuple[tuple[float, Prediction], tuple[float, Prediction]]] = {}
    for seed in seeds:
        one, other = ours.get(lone.get(id(ours), seed)), theirs.get(lone.get(id(theirs), seed))
        if one is None or other is None or one.keys() != other.keys():
            raise InputError(
                f"task {a.task!r}, {a.mode} at {a.shots} and {b.mode} at {b.shots} shots: other queries or seeds were "
                f"asked (seeds {sorted(ours)} and {sorted(theirs)}, {a.queries} and {b.queries} queries)."
            )
        found |= {(item, seed): (_scored(one[item]), _scored(other[item])) for item in one}
    return found


def _scored(prediction: Prediction) -> tuple[float, Prediction]:
    return math.nan if prediction.score is None else prediction.score, prediction


def permutation_p(differences: Sequence[float]) -> float:
    """Two-sided p value of a sum of differences under flips of their signs.

    All flips are tried where at most 12 differences are not 0; elsewhere 10,000 random ones (seeded), and the observed
    one is counted among them.
    """
    values = np.array([value for value in differences if value])
    if not len(values):
        return 1.0
    observed = abs(values.sum())
    if len(values) <= _ALL_FLIPS:
        signs = 1 - 2 * ((np.arange(2 ** len(values))[:, None] >> np.arange(len(values))) & 1)
        return float((np.abs(signs @ values) >= observed - 1e-9 * observed).mean())
    generator = np.random.default_rng(0)
    sums = np.array([values @ generator.choice([-1.0, 1.0], len(values)) for _ in range(_FLIPS)])
    return float(((np.abs(sums) >= observed - 1e-9 * observed).sum() + 1) / (_FLIPS + 1))


def _holm(differences: Sequence[Difference]) -> list[Difference]:
    tested = sorted((d.p, place) for place, d in enumerate(differences) if d.p is not None)
    corrected, largest = dict[int, float](), 0.0
    for rank, (p, place) in enumerate(tested):
        largest = max(largest, min(1.0, p * (len(tested) - rank)))
        corrected[place] = largest
    return [replace(d, p_holm=corrected.get(place)) for place, d in enumerate(differences)]


def _compared(d: Difference) -> str:
    names = [f"{LABELS[mode]}, k={k}" for mode, k in zip(d.modes, d.shots, strict=True)]
    return names[0] if names[0] == names[1] else " → ".join(names)


def _p(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}" if value >= 1e-4 else "<0.0001"


def _inventory(run: Run) -> str:
    return ", ".join(f"{s.task} {s.mode} k={s.shots}" for s in run.scores[:8]) + (" ..." if len(run.scores) > 8 else "")
