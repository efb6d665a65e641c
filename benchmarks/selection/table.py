"""``python -m benchmarks.selection.table FILE``: selectors by k, for AIM and for interleaved prompting.

Asks what was not asked yet (the same command resumes), prints the table in Markdown, and writes a result with its
provenance and a plot. Gains are paired with the selector `reading` of the same mode and k; all errors are standard
errors over queries. ``--print`` asks and writes nothing: a table of what is there.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from aim_sdk.files.atomic import write_atomic
from aim_sdk.files.yaml_files import read_yaml
from aim_sdk.support import figures
from aim_sdk.support.provenance import provenance
from benchmarks.pocket.table_scores import Answers, mean
from benchmarks.selection.runs import Scores, TableSettings, kept, run_all

_ROOT: Final = Path(__file__).parents[2]
_RESULTS: Final = _ROOT / "benchmarks" / "results"
_ASSETS: Final = _ROOT / "docs" / "assets"
_OVER: Final = "reading"


def answers_of(scores: Iterable[Scores], weights: Sequence[float]) -> Answers:
    """Whether each row's likeliest choice is right, by k and query.

    Rows are ``zero-shot``, ``nearest``, ``<mode>, <selector>``, and ``<mode>, <selector> + <weight> vote``: the LM's
    log-probability and the weighted log share of the vote of all demonstrations, from the same scores.
    """
    rows: dict[str, dict[int, dict[tuple[str, str], float]]] = defaultdict(lambda: defaultdict(dict))
    for one in scores:
        trial = (one.task, f"{one.pool} {one.query}")
        for k, shares in one.votes.items():
            if k:
                rows["nearest"][k][trial] = _right(shares, one.right)
        for mode, by_selector in one.log_probs.items():
            for selector, by_k in by_selector.items():
                for k, log_probs in by_k.items():
                    name = f"{mode}, {selector}" if selector else mode
                    rows[name][k][trial] = _right(log_probs, one.right)
                    for weight in weights if selector else ():
                        both = [lm + weight * vote for lm, vote in zip(log_probs, one.votes[0], strict=True)]
                        rows[f"{name} + {weight:g} vote"][k][trial] = _right(both, one.right)
    return Answers(rows)


def _right(log_probs: Sequence[float], right: int) -> float:
    """1 if the right choice is the likeliest; its share among equally likely ones."""
    top = max(log_probs)
    return (log_probs[right] == top) / sum(value == top for value in log_probs)


def result(table: TableSettings, scores: Sequence[Scores]) -> dict[str, Any]:
    """The table as it is kept: by noise, row, task (``all``: together) and k."""
    found: dict[str, Any] = {
        "what": "right answers of pocket by selector; the likeliest choice is the answer; gains are over `reading`",
        **provenance("tokenizers", "numpy"),
        "settings": table.model_dump(mode="json"),
    }
    by_noise = {}
    for noise in sorted({one.noise for one in scores}):
        part = [one for one in scores if one.noise == noise]
        answers, tasks = answers_of(part, table.weights), [*sorted({one.task for one in part}), None]
        by_noise[f"{noise:g}"] = {
            "rows": {
                row: {
                    task or "all": {str(k): made.as_json() for k in by_k if (made := answers.mean(row, k, task))}
                    for task in tasks
                }
                for row, by_k in answers.scores.items()
            },
            "gains": {
                row: {
                    task or "all": {str(k): made.as_json() for k in by_k if (made := answers.gain(row, over, k, task))}
                    for task in tasks
                }
                for row, by_k in answers.scores.items()
                if (over := compared(row)) is not None
            },
            "wrong_shown": _wrong_shown(part),
            "refused": _refused(part),
        }
    return {**found, "noise": by_noise}


def compared(row: str) -> str | None:
    """The row that a row's gain is over: the selector `reading` in the same mode; None for itself and zero-shot."""
    if row == "nearest":
        return f"aim, {_OVER}"
    mode, _, rest = row.partition(", ")
    return f"{mode}, {_OVER}" if rest and rest != _OVER else None


def _wrong_shown(scores: Sequence[Scores]) -> dict[str, dict[str, Any]]:
    """The share of what is shown whose answers were changed, by selector and k."""
    shares: dict[str, dict[int, dict[tuple[str, str], float]]] = defaultdict(lambda: defaultdict(dict))
    for one in scores:
        for selector, by_k in one.shown.items():
            for k, places in by_k.items():
                share = statistics.fmean(place in one.wrong for place in places)
                shares[selector][k][one.task, f"{one.pool} {one.query}"] = share
    return {
        selector: {str(k): made.as_json() for k, by_trial in by_k.items() if (made := mean(by_trial))}
        for selector, by_k in shares.items()
    }


def _refused(scores: Sequence[Scores]) -> dict[str, dict[str, int]]:
    """Queries for which a selector shows nothing, by selector and task."""
    found: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for one in scores:
        for selector in one.refused:
            found[selector][one.task] += 1
    return {selector: dict(by_task) for selector, by_task in found.items()}


def markdown(kept_result: Mapping[str, Any]) -> str:
    """For each noise: all rows by k, the gains by k, and what is shown wrong; all tasks together, then each."""
    parts = []
    for noise, found in kept_result["noise"].items():
        tasks = sorted({task for row in found["rows"].values() for task in row} - {"all"})
        parts.append(f"## {float(noise):.0%} of the demonstrations' answers changed")
        for task in ("all", *tasks):
            parts += [_lines(f"{task}: right", found["rows"], task), _lines(f"{task}: gain", found["gains"], task, "+")]
        shown = {selector: {"all": by_k} for selector, by_k in found["wrong_shown"].items()}
        if float(noise):
            parts.append(_lines("share of what is shown that is wrong", shown, "all"))
    return "\n\n".join(part for part in parts if part)


def _lines(title: str, rows: Mapping[str, Mapping[str, Mapping[str, Any]]], task: str, sign: str = "") -> str:
    printed = (row for row in rows if " vote" not in row or f", {_OVER} + " in row)  # the others are in the result
    asked = {row: by_task[task] for row in printed if (by_task := rows[row]).get(task)}
    if not asked:
        return ""
    shots = sorted({k for by_k in asked.values() for k in by_k}, key=int)
    most = {k: max(by_k[k]["n"] for by_k in asked.values() if k in by_k) for k in shots}
    lines = [[title, *(f"k={k} (n={most[k]})" for k in shots)], ["---"] * (1 + len(shots))]
    lines += [[row, *(_cell(by_k.get(k), sign) for k in shots)] for row, by_k in asked.items()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(found: Mapping[str, Any] | None, sign: str) -> str:
    if found is None:
        return ""
    error = "" if found["standard_error"] is None else f" ± {found['standard_error']:.3f}"
    return f"{found['value']:{sign}.3f}{error}".replace("0.", ".")


def plot(kept_result: Mapping[str, Any]) -> bytes:
    """Right answers over k, all tasks together: a panel for each noise and mode, a line for each selector; as PNG."""
    drawn: dict[str, dict[str, dict[int, Mapping[str, Any]]]] = defaultdict(dict)
    for noise, found in kept_result["noise"].items():
        for row, by_task in found["rows"].items():
            mode, _, selector = row.partition(", ")
            if selector and " vote" not in selector and by_task.get("all"):
                drawn[f"{mode}, {float(noise):.0%} wrong"][selector] = {int(k): e for k, e in by_task["all"].items()}
    names = list(dict.fromkeys(selector for lines in drawn.values() for selector in lines))
    figure, panels = figures.panels(len(drawn), columns=2)
    entries: dict[str, Any] = {}
    for panel, (title, lines) in zip(panels, drawn.items(), strict=True):
        shots = sorted({k for by_k in lines.values() for k in by_k})
        asides = figures.asides(len(names), shots)
        for number, name in enumerate(names):
            if not (points := lines.get(name)):
                continue
            places = [figures.aside(k, asides[number], shots) for k in points]
            errors = [math.nan if e["standard_error"] is None else e["standard_error"] for e in points.values()]
            options = {"color": f"C{number % 10}", "capsize": 2, **figures.style(number).options}
            entries[name] = panel.errorbar(places, [e["value"] for e in points.values()], errors, **options)
        figures.title(panel, title)
        panel.set_ylabel("right answers", fontsize=9)
        figures.shots_axis(panel, shots)
    figures.legend(figure, entries)
    return figures.png(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--print", action="store_true", help="ask and write nothing")
    parser.add_argument("--results", type=Path, default=_RESULTS, help="the folder of the result")
    parser.add_argument("--assets", type=Path, default=_ASSETS, help="the folder of the plot")
    options = parser.parse_args()
    table = read_yaml(options.file, TableSettings)
    if not options.print:
        run_all(table)
    found = result(table, kept(table))
    print(markdown(found))
    if not options.print:
        command = f"python -m benchmarks.selection.table {options.file.name}"
        text = json.dumps({**found, "command": command}, indent=1) + "\n"
        write_atomic(options.results / f"selection-{options.file.stem}.json", text.encode())
        write_atomic(options.assets / f"selection-{options.file.stem}.png", plot(found))


if __name__ == "__main__":
    main()
