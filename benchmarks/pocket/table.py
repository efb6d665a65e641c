"""``python -m benchmarks.pocket.table FILE``: the table of the finished runs of `benchmarks.pocket.table_runs`.

Writes one result with its provenance and a plot over shots, and prints the table in Markdown. Rows are compared on the
trials that both answered; all errors are standard errors over trials.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from aim_sdk.files.yaml_files import read_yaml
from aim_sdk.support import figures
from aim_sdk.support.provenance import provenance
from benchmarks.pocket.config import RESULTS
from benchmarks.pocket.table_runs import TableSettings
from benchmarks.pocket.table_scores import CONTROL, OF_THE_BACKBONE, Answers, Estimate

_ASSETS: Final = Path(__file__).parents[2] / "docs" / "assets"
_SHOTS: Final = 4
_JUDGED: Final = "distilled"
_OVER: Final = ("training-free", "interleaved", "shipped", "lm", "text-only", _JUDGED + CONTROL)
_START, _TEACHER = "training-free", "interleaved"
_NEAR: Final = {"names-of-2": 0.02, "names-of-4": 0.02, "categories": 0.05, "answer-format": 0.05}
"""How far below interleaved prompting AIM may be."""


def result(table: TableSettings, answers: Answers) -> dict[str, Any]:
    """The table as it is kept."""
    tasks: list[str | None] = [*table.tasks, None]
    rows = {row: _over_shots(answers, row, tasks) for row in answers.scores}
    gains = {over: _gains(answers, _JUDGED, over, tasks) for over in _OVER}
    closed = {
        _named(task): found.as_json()
        for task in tasks
        if (found := answers.closed(_JUDGED, _START, _TEACHER, _SHOTS, task))
    }
    return {
        "what": "pocket's trials: the likeliest choice is the answer; paired gains and the share of the gap at k=4",
        **provenance("tokenizers"),
        "trainings": answers.trainings,
        "rows": rows,
        "gains": gains,
        "gains_of_each_row": {row: _gains(answers, row, _START, tasks) for row in _compared(answers)},
        "gap_closed": closed,
        "goals": goals(answers, table.tasks),
        "runs": answers.runs,
    }


def goals(answers: Answers, tasks: Sequence[str]) -> dict[str, bool | None]:
    """Whether each goal is reached, by the estimates; None: not measured."""
    gains = {task: answers.gain(_JUDGED, _START, _SHOTS, task) for task in tasks}
    against = {task: answers.gain(_JUDGED, _TEACHER, _SHOTS, task) for task in _NEAR}
    shares = {task: answers.closed(_JUDGED, _START, _TEACHER, _SHOTS, task) for task in tasks}
    pooled = answers.gain(_JUDGED, _START, _SHOTS)
    measured = all(gains.values())
    return {
        "below training-free nowhere": all(g.value >= 0 for g in gains.values() if g) if measured else None,
        "above training-free, pooled, by more than 2 standard errors": pooled and pooled.value > 2 * pooled.error,
        "half of every gap to interleaved closed": all(s.value >= 0.5 for s in shares.values() if s)
        if measured
        else None,
        **{
            f"{task}: at least interleaved - {_NEAR[task]}": found and found.value >= -_NEAR[task]
            for task, found in against.items()
        },
    }


def markdown(table: TableSettings, answers: Answers) -> str:
    """The tables for the documentation: k=4, the gains, and each task over shots."""
    tasks: list[str | None] = [*table.tasks, None]
    head = [f"k={_SHOTS}", *map(_named, tasks)]
    rows = [[row, *(_cell(answers.mean(row, _SHOTS, task)) for task in tasks)] for row in _ordered(answers)]
    sizes = [_largest(answers, _SHOTS, task) for task in tasks]
    parts = [_pipe([head, ["n, at most", *map(str, sizes)], *rows])]
    compared = [(_JUDGED, over) for over in _OVER if _JUDGED in answers.scores]
    compared += [(one, _START) for one in _compared(answers)]
    gains = [
        [f"{one} - {over}", *(_cell(answers.gain(one, over, _SHOTS, task), "+") for task in tasks)]
        for one, over in compared
    ]
    share = [_cell(answers.closed(_JUDGED, _START, _TEACHER, _SHOTS, task)) for task in tasks]
    parts.append(_pipe([head, *gains, ["share of the gap that is closed", *share]]))
    for task in table.tasks:
        shots = answers.shots()
        lines = [[row, *(_cell(answers.mean(row, k, task)) for k in shots)] for row in _ordered(answers)]
        parts.append(_pipe([[task, *(f"k={k} (n={_largest(answers, k, task)})" for k in shots)], *lines]))
    said = {True: "reached", False: "missed", None: "not measured"}
    parts.append("\n".join(f"* {goal}: {said[reached]}" for goal, reached in goals(answers, table.tasks).items()))
    return "\n\n".join(parts)


def plot(table: TableSettings, answers: Answers) -> bytes:
    """Draw the share of right answers over shots, one panel a task; as PNG."""
    figure, panels = figures.panels(len(table.tasks))
    single = {row for rows in answers.trainings.values() for row in rows}
    shots, drawn = answers.shots(), [r for r in _ordered(answers) if r not in single and not r.endswith(CONTROL)]
    entries = {}
    for panel, task in zip(panels, table.tasks, strict=True):
        for number, row in enumerate(drawn):
            points = {k: found for k in shots if (found := answers.mean(row, k, task))}
            if not points:
                continue
            places = [figures.aside(k, 0.05 * (number - len(drawn) / 2), shots) for k in points]
            values, errors = [p.value for p in points.values()], [p.error for p in points.values()]
            options = {"color": f"C{number % 10}", "capsize": 2, **figures.style(number).options}
            entries[row] = panel.errorbar(places, values, errors, **options)
        figures.title(panel, task)
        panel.set_ylabel("right answers", fontsize=9)
        figures.shots_axis(panel, shots)
    figures.legend(figure, entries)
    return figures.png(figure)


def _gains(answers: Answers, row: str, over: str, tasks: Sequence[str | None]) -> dict[str, dict[str, Any]]:
    found = {task: answers.gain(row, over, _SHOTS, task) for task in tasks}
    return {_named(task): gain.as_json() for task, gain in found.items() if gain}


def _over_shots(answers: Answers, row: str, tasks: Sequence[str | None]) -> dict[str, dict[str, Any]]:
    shots = [0] if row == "zero-shot" else answers.shots()
    found = {task: {str(k): e.as_json() for k in shots if (e := answers.mean(row, k, task))} for task in tasks}
    return {_named(task): by_shots for task, by_shots in found.items() if by_shots}


def _ordered(answers: Answers) -> list[str]:
    """Rows as they are read: what the backbone does alone, then each projector with its control."""
    alone = [row for row in OF_THE_BACKBONE if row in answers.scores]
    rest = [row for row in answers.scores if row not in alone and not row.endswith(CONTROL)]
    return [*alone, *(one for row in rest for one in (row, row + CONTROL) if one in answers.scores)]


def _compared(answers: Answers) -> list[str]:
    """Rows of projectors, other than the start and the judged one."""
    others = {*OF_THE_BACKBONE, _START, _JUDGED}
    return [row for row in _ordered(answers) if row not in others and not row.endswith(CONTROL)]


def _largest(answers: Answers, shots: int, task: str | None) -> int:
    """The most trials of a row; those of zero-shot are the same for all numbers of shots."""
    rows = [row for row in answers.scores if row != "zero-shot"]
    return max((found.n for row in rows if (found := answers.mean(row, shots, task))), default=0)


def _named(task: str | None) -> str:
    return "all" if task is None else task


def _cell(found: Estimate | None, sign: str = "") -> str:
    if found is None:
        return ""
    error = "" if math.isnan(found.error) else f" ± {found.error:.3f}"
    return f"{found.value:{sign}.3f}{error}".replace("0.", ".")


def _pipe(rows: Sequence[Sequence[str]]) -> str:
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    """Write the result and the plot, and print the table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--print", action="store_true", help="write nothing: runs are missing")
    options = parser.parse_args()
    table = read_yaml(options.file, TableSettings)
    answers = Answers.load(table)
    print(markdown(table, answers))
    if not options.print:
        kept: Mapping[str, Any] = {**result(table, answers), "settings": options.file.name}
        (RESULTS / f"{options.file.stem}.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        (_ASSETS / f"{options.file.stem}.png").write_bytes(plot(table, answers))


if __name__ == "__main__":
    main()
