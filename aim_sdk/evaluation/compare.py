"""Compares two runs, or two modes, query by query."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from aim_sdk.clusters import clustered_error
from aim_sdk.errors import InputError, did_you_mean
from aim_sdk.evaluation.report import Grid, console, pipe_table
from aim_sdk.evaluation.results import Prediction, Run, Score
from aim_sdk.fitted import FittedTable
from aim_sdk.modes import LABELS
from aim_sdk.types import Mode

_FLIPS: Final = 10_000
_ALL_FLIPS: Final = 12
"""Up to so many queries that differ, all their signs are tried."""
_NORMAL_95: Final = 1.96

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
    """Answers of the second that score higher, lower: the two counts of McNemar's test, where scores are binary."""
    same_demonstrations: bool
    """Whether both were shown the same ones."""

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the difference, by the normal approximation."""
        return self.difference - _NORMAL_95 * self.standard_error, self.difference + _NORMAL_95 * self.standard_error


def compare(first: Run, second: Run, *, modes: Modes | None = None) -> list[Difference]:
    """Compare what both runs have: equal tasks, modes and shots; or, with ``modes``, one mode to another.

    Zero-shot answers are compared with any number of shots of the other mode. Where one of the two has no score (a
    prompt was too long, say), the difference is NaN.

    Raises:
        InputError: nothing can be paired, or the runs were asked by different protocols or metrics.
    """
    if first.protocol != second.protocol:
        raise InputError(
            f"the runs were asked by different protocols ({first.protocol['name']}, {second.protocol['name']}, or "
            "other settings of one): their scores are not comparable."
        )
    pairs = [(a, b) for a in first.scores for b in second.scores if a.task == b.task and _matches(a, b, modes)]
    if all(math.isnan(b.value - a.value) for a, b in pairs):
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


def table(differences: Sequence[Difference]) -> FittedTable:
    """Return the differences for the console."""
    return console(_grid(differences))


def markdown(differences: Sequence[Difference]) -> str:
    """Return the differences as a Markdown table under its caption."""
    return pipe_table(_grid(differences)) + "\n"


def _grid(differences: Sequence[Difference]) -> Grid:
    caption = "second − first ± standard error, paired by query; errors clustered by query"
    head = ("task", "compared", "first", "second", "difference", "95 %", "p", "p (Holm)", "better/worse of pairs")
    return Grid(caption, head, tuple(map(_row, differences)), keys=2, alike=False)


def _row(d: Difference) -> tuple[str, ...]:
    names = (d.task, _compared(d), _number(d.first), _number(d.second))
    if math.isnan(d.difference):
        return *names, "", "", "", "", "no number: a prompt is too long, or the score is not defined"
    error = "" if math.isnan(d.standard_error) else f" ± {d.standard_error:.1f}"
    interval = "{:+.1f} to {:+.1f}".format(*d.interval) if error else ""
    return *names, f"{d.difference:+.1f}{error}", interval, _p(d.p), _p(d.p_holm), _remark(d)


def _remark(d: Difference) -> str:
    other = "" if d.same_demonstrations else " (other demonstrations)"
    if d.p is None:
        return f"{d.pairs} pairs without own scores; the error is as if independent, which is conservative{other}"
    return f"{d.better}/{d.worse} of {d.pairs}{other}"


def _matches(a: Score, b: Score, modes: Modes | None) -> bool:
    if modes is None:
        return (a.mode, a.shots) == (b.mode, b.shots)
    return (a.mode, b.mode) == modes and (a.shots == b.shots or "zero-shot" in modes)


def _difference(first: Run, a: Score, second: Run, b: Score) -> Difference:
    if a.metric != b.metric:
        raise InputError(f"task {a.task!r} is scored by {a.metric} in one run and by {b.metric} in the other.")
    options = [run.tasks.get(a.task, {}).get("metric_options", {}) for run in (first, second)]
    if options[0] != options[1]:
        raise InputError(
            f"task {a.task!r} is scored by {a.metric} with other options: {options[0]} in one run and {options[1]} in "
            "the other."
        )
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
    if math.isnan(found.difference) or any(math.isnan(x) or math.isnan(y) for (x, _), (y, _) in both.values()):
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
    found: dict[tuple[str, int], tuple[tuple[float, Prediction], tuple[float, Prediction]]] = {}
    for seed in seeds:
        one, other = _under(seed, a, ours), _under(seed, b, theirs)
        if one is None or other is None or one.keys() != other.keys():
            raise InputError(
                f"task {a.task!r}, {a.mode} at {a.shots} and {b.mode} at {b.shots} shots: other queries or seeds were "
                f"asked (seeds {sorted(ours)} and {sorted(theirs)}, {a.queries} and {b.queries} queries)."
            )
        found |= {(item, seed): (_scored(one[item]), _scored(other[item])) for item in one}
    return found


def _under(seed: int, score: Score, answers: Mapping[int, Mapping[str, Prediction]]) -> Mapping[str, Prediction] | None:
    if score.mode == "zero-shot" and len(answers) == 1:
        return next(iter(answers.values()))
    return answers.get(seed)


def _scored(prediction: Prediction) -> tuple[float, Prediction]:
    return math.nan if prediction.score is None else prediction.score, prediction


def permutation_p(differences: Sequence[float]) -> float:
    """Two-sided p value of a sum of differences under flips of their signs.

    Where all are of one size, this is the exact sign test (McNemar's, of binary scores under one seed). Else all flips
    are tried where at most 12 differences are not 0; and above that 10,000 random ones (seeded), with the observed one
    counted among them (Phipson and Smyth, 2010).
    """
    values = np.array([value for value in differences if value])
    if not len(values):
        return 1.0
    if np.ptp(np.abs(values)) < 1e-9 * np.abs(values).max():
        return _sign_test(int((values > 0).sum()), len(values))
    observed = abs(values.sum()) - 1e-9 * np.abs(values).max()  # equal sums may differ in their last digits
    if len(values) <= _ALL_FLIPS:
        signs = 1 - 2 * ((np.arange(2 ** len(values))[:, None] >> np.arange(len(values))) & 1)
        return float((np.abs(signs @ values) >= observed).mean())
    generator = np.random.default_rng(0)
    reached = sum(abs(values.sum() - 2 * _coins(generator, len(values)) @ values) >= observed for _ in range(_FLIPS))
    return float((reached + 1) / (_FLIPS + 1))


def _sign_test(plus: int, count: int) -> float:
    """Two-sided probability of at least as uneven a split of ``count`` fair coins."""
    few = min(plus, count - plus)
    whole = math.lgamma(count + 1) - count * math.log(2)
    logs = [whole - math.lgamma(k + 1) - math.lgamma(count - k + 1) for k in range(few + 1)]
    return min(1.0, 2 * math.fsum(map(math.exp, logs)))


def _coins(generator: np.random.Generator, count: int) -> NDArray[np.float64]:
    """``count`` fair zeros and ones: random bits are ten times faster than random numbers."""
    return np.unpackbits(np.frombuffer(generator.bytes(-(-count // 8)), np.uint8), count=count).astype(float)


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


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1f}"


def _p(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}" if value >= 1e-4 else "<0.0001"


def _inventory(run: Run) -> str:
    return ", ".join(f"{s.task} {s.mode} k={s.shots}" for s in run.scores[:8]) + (" ..." if len(run.scores) > 8 else "")
