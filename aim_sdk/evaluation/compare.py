"""Compares two runs, or two modes, query by query."""

from __future__ import annotations

import math
from collections.abc import Sequence

from aim_sdk.errors import InputError, did_you_mean, unknown
from aim_sdk.evaluation.paired import Difference, Modes, difference, holm
from aim_sdk.evaluation.report import Grid, console, pipe_table
from aim_sdk.evaluation.results import Run, Score
from aim_sdk.support.fitted import FittedTable
from aim_sdk.support.modes import LABELS

Names = tuple[str, str]
"""The names of the two runs."""
_NAMES: Names = ("first", "second")


def compare(
    first: Run,
    second: Run,
    *,
    modes: Modes | None = None,
    tasks: Sequence[str] = (),
    shots: Sequence[int] = (),
) -> list[Difference]:
    """Compare what both runs have: equal tasks, modes and shots; or, with ``modes``, one mode to another.

    ``tasks`` and ``shots`` leave out all others: p values are corrected for what is reported. Zero-shot answers are
    compared with any number of shots of the other mode. If one of the two has no score (because a prompt was too long,
    for example), the difference is NaN.

    Raises:
        InputError: nothing can be paired, or the runs used different protocols, metrics or data.
    """
    if first.protocol != second.protocol:
        raise InputError(
            f"the runs used different protocols ({first.protocol['name']}, {second.protocol['name']}, or different "
            "settings of the same one): their scores are not comparable."
        )
    for task in tasks:
        if task not in first.tasks or task not in second.tasks:
            known = sorted(first.tasks.keys() & second.tasks.keys())
            raise InputError(
                f"no task {task!r} in both runs.{did_you_mean(task, known)} Both have: {', '.join(known) or 'none'}."
            )
    pairs = [
        (a, b)
        for a in first.scores
        for b in second.scores
        if a.task == b.task and _matches(a, b, modes)
        if not tasks or a.task in tasks
        if not shots or max(a.shots, b.shots) in shots
    ]
    if all(math.isnan(b.value - a.value) for a, b in pairs):
        raise InputError(
            f"nothing to compare: the first run has {_inventory(first)}; the second {_inventory(second)}. Expected the "
            "same tasks, modes and shots in both, or --modes FIRST,SECOND; cells whose prompts are too long have no "
            "score."
        )
    return holm([difference(first, a, second, b) for a, b in pairs])


def modes_of(names: Sequence[str]) -> Modes:
    """Parse the names of two modes.

    Raises:
        InputError: there are not exactly two, or one does not exist.
    """
    for name in names:
        if name not in LABELS:
            raise InputError(unknown("mode", name, LABELS))
    if len(names) != 2:
        raise InputError(f"modes {', '.join(names)}: expected two, as in text-only,aim.")
    first, second = (next(mode for mode in LABELS if mode == name) for name in names)
    return first, second


def table(differences: Sequence[Difference], names: Names = _NAMES) -> FittedTable:
    """Return the differences for the console, under the runs' names."""
    return console(_grid(differences, names))


def markdown(differences: Sequence[Difference], names: Names = _NAMES) -> str:
    """Return the differences as a Markdown table under its caption."""
    return pipe_table(_grid(differences, names)) + "\n"


def _grid(differences: Sequence[Difference], names: Names) -> Grid:
    one, other = _titles(differences, names)
    caption = f"{other} − {one} ± standard error, paired by query; errors clustered by query"
    head = ("task", "compared", one, other, "difference", "95 %", "p", "p (Holm)", "better/worse of pairs")
    return Grid(caption, head, tuple(map(_row, differences)), keys=2, alike=False)


def _titles(differences: Sequence[Difference], names: Names) -> Names:
    """The runs' names; for a single run, or if different modes are compared, the modes' names."""
    modes = {d.modes for d in differences}
    if len(modes) != 1 or len(set(pair := next(iter(modes)))) == 1:
        return names
    if names[0] == names[1]:
        return pair
    return f"{names[0]}, {pair[0]}", f"{names[1]}, {pair[1]}"


def _row(d: Difference) -> tuple[str, ...]:
    names = (d.task, _compared(d), _number(d.first), _number(d.second))
    if math.isnan(d.difference):
        return *names, "", "", "", "", "no score: a prompt is too long, or the metric is not defined"
    error = "" if math.isnan(d.standard_error) else f" ± {d.standard_error:.1f}"
    interval = "{:+.1f} to {:+.1f}".format(*d.interval) if error else ""
    return *names, f"{d.difference:+.1f}{error}", interval, _p(d.p), _p(d.p_holm), _remark(d)


def _remark(d: Difference) -> str:
    other = "" if d.same_demonstrations else " (other demonstrations)"
    if d.p is None:
        return f"{d.pairs} pairs without scores of their own; treated as independent, which is conservative{other}"
    answers = f" answers to {d.queries} queries" if d.pairs != d.queries else ""
    return f"{d.better}/{d.worse} of {d.pairs}{answers}{other}"


def _matches(a: Score, b: Score, modes: Modes | None) -> bool:
    if modes is None:
        return (a.mode, a.shots) == (b.mode, b.shots)
    return (a.mode, b.mode) == modes and (a.shots == b.shots or "zero-shot" in modes)


def _compared(d: Difference) -> str:
    names = [f"{LABELS[mode]}, k={k}" for mode, k in zip(d.modes, d.shots, strict=True)]
    return names[0] if names[0] == names[1] else " → ".join(names)


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1f}"


def _p(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}" if value >= 1e-4 else "<0.0001"


def _inventory(run: Run) -> str:
    return ", ".join(f"{s.task} {s.mode} k={s.shots}" for s in run.scores[:8]) + (" ..." if len(run.scores) > 8 else "")
