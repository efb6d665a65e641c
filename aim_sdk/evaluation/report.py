"""A report of one or more runs: tables on the console, a page in Markdown and one in HTML, with plots."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader

from aim_sdk.evaluation import plots
from aim_sdk.evaluation.answers_table import answers_csv
from aim_sdk.evaluation.honest import beaten, refusals
from aim_sdk.evaluation.results import Run, Score, titled
from aim_sdk.evaluation.scoring import mean
from aim_sdk.files.atomic import write_atomic
from aim_sdk.support.fitted import FittedTable
from aim_sdk.support.modes import LABELS
from aim_sdk.support.terminal import cell

_NOT_TRAINING: Final = {"kind", "hash", "layers", "options"}
"""What a result says about a projector, besides the summary of its training."""
_PLOTS: Final[dict[str, Callable[[Mapping[str, Run]], bytes]]] = {"scores.png": plots.scores, "costs.png": plots.costs}


@dataclass(frozen=True, slots=True)
class Grid:
    """One table: what every output is made from."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    keys: int = 1
    """Columns, from the left, that say what a row is."""
    alike: bool = True
    """Whether the other columns are of one kind: a table that is too wide is then split between them."""


def tables(runs: Mapping[str, Run]) -> list[FittedTable]:
    """Return the tables for the console."""
    return [console(grid) for grid in grids(runs)]


def write(runs: Mapping[str, Run], folder: Path) -> list[Path]:
    """Write ``report.md``, ``report.html``, ``answers.csv`` and the plots; return their paths.

    Args:
        runs: by the names that they get in the report.
        folder: created if missing.
    """
    drawn = {name: draw(runs) for name, draw in _PLOTS.items()}
    pages = {"report.md": markdown(runs).encode(), "report.html": page(runs, drawn).encode()}
    pages["answers.csv"] = answers_csv(runs)
    for name, data in (drawn | pages).items():
        write_atomic(folder / name, data)
    return [folder / name for name in drawn | pages]


def markdown(runs: Mapping[str, Run]) -> str:
    """Return the report in Markdown; the plots are next to it."""
    parts = ["# Few-shot evaluation"]
    for name, run in runs.items():
        parts.append(f"## {_cell(name)}")
        parts.append("\n".join(f"* **{label}**: {_cell(value)}" for label, value in facts(run).items()))
    parts += ["## Results", *map(pipe_table, grids(runs)), *map(_cell, [*beaten(runs), *refusals(runs)])]
    parts += [f"![{name.removesuffix('.png')} over shots]({name})" for name in _PLOTS]
    return "\n\n".join(parts) + "\n"


def page(runs: Mapping[str, Run], drawn: Mapping[str, bytes]) -> str:
    """Return the report as one HTML file that needs no other."""
    pages = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    return pages.get_template("report.html.jinja").render(
        runs={name: facts(run) for name, run in runs.items()},
        grids=grids(runs),
        sentences=[*beaten(runs), *refusals(runs)],
        plots={name.removesuffix(".png"): base64.b64encode(data).decode() for name, data in drawn.items()},
    )


def facts(run: Run) -> dict[str, str]:
    """What a run was made with, in words."""
    settings = run.settings
    left_out = settings.get("left_out") or {}
    backend = f"backend {run.backbone['backend']}"
    if (dtype := run.computed.get("dtype") or settings.get("dtype")) is not None:
        backend += f", {dtype}"
    if (device := run.computed.get("device") or settings.get("device")) is not None:
        backend += f" on {device}"
    limit = settings.get("limit")
    found = {
        "backbone": f"{run.backbone['model']} ({backend})",
        "projector": _projector(run.projector, settings.get("projector")),
        "protocol": f"{run.protocol['name']}: {run.protocol['description']}",
        "selector": str(settings["selector"]),
        "queries": "all of each task" if limit is None else f"at most {limit} of each task, drawn at random (limit)",
        "batch size": str(settings.get("batch_size", "not known")),
        "command": "none: from Python" if run.command is None else f"aim-icl {run.command}",
        "date": run.date,
        "revision": run.revision or "installed package",
        "machine": ", ".join(f"{key} {value}" for key, value in run.machine.items()),
        "versions": ", ".join(f"{key} {value}" for key, value in run.versions.items()),
        "reading demonstrations": _reading(run.reading_seconds),
    }
    if run.command is not None and not run.command.startswith("eval"):
        found["command"] = run.command  # another program's
    if left_out:
        found["left out"] = "; ".join(f"{mode}: {reason}" for mode, reason in left_out.items())
    return found


def _projector(found: Mapping[str, Any], source: str | None) -> str:
    """Its kind and hash, where it came from, what it reads and how it was trained, as far as a run records it."""
    parts = [f"{found['kind']} {str(found['hash'])[:12]}"]
    if source is None:
        parts.append("the backend's default")
    elif source != found["kind"]:
        parts.append(f"from {source}")
    if layers := found.get("layers"):
        parts.append("layers " + ", ".join(map(str, layers)))
    parts += [f"{name}={value}" for name, value in (found.get("options") or {}).items()]
    said = {name: value for name, value in found.items() if name not in _NOT_TRAINING and not _is_nested(value)}
    if set(found) - _NOT_TRAINING:
        parts.append("trained" + (": " if said else "") + ", ".join(f"{name} {value}" for name, value in said.items()))
    elif "options" in found:  # a result of an earlier version may lack it
        parts.append("untrained")
    return "; ".join(parts)


def _is_nested(value: object) -> bool:
    return isinstance(value, Mapping | list | tuple)


def _reading(seconds: float) -> str:
    if seconds < 1e-3:
        return "none: no mode needed it, or a bank held them"
    return f"{seconds:.1f} s" if seconds >= 10 else f"{seconds:.2g} s"


def grids(runs: Mapping[str, Run]) -> list[Grid]:
    """The tables, all runs side by side: scores, what a query costs by task, and the means over tasks."""
    tasks = dict.fromkeys(score.task for run in runs.values() for score in run.scores)
    return [*score_grids(runs), *(_costs(runs, task) for task in tasks), *mean_grids(runs)]


def score_grids(runs: Mapping[str, Run]) -> list[Grid]:
    """One table per task and metric."""
    scored = dict.fromkeys((score.task, score.metric) for run in runs.values() for score in run.scores)
    return [_scores(runs, *one) for one in scored]


def mean_grids(runs: Mapping[str, Run]) -> list[Grid]:
    """Scores and costs as means over tasks, for runs that have several tasks with one metric; none if no run does."""
    found = {name: averaged for name, run in runs.items() if (averaged := mean(run.scores))}
    if not found:
        return []
    return [
        _grid(runs, found, _titled(runs, found, "mean over tasks"), _value),
        _grid(runs, found, f"mean over tasks · {_what_costs(found)}", _cost),
    ]


def _scores(runs: Mapping[str, Run], task: str, metric: str) -> Grid:
    """A table of one metric: numbers of two metrics never share a column."""
    found = {name: [s for s in scores if s.metric == metric] for name, scores in _of(runs, task).items()}
    found = {name: scores for name, scores in found.items() if scores}
    return _grid(runs, found, _titled(runs, found, titled(runs, task)), _value)


def _titled(runs: Mapping[str, Run], found: Mapping[str, Sequence[Score]], what: str) -> str:
    ways = {name: _way(runs[name], scores) for name, scores in found.items()}
    same = len(set(ways.values())) == 1
    how = next(iter(ways.values())) if same else "; ".join(f"{name}: {way}" for name, way in ways.items())
    return f"{what} · {how}"


def _way(run: Run, found: Sequence[Score]) -> str:
    """What a table's numbers mean, and over how many answers."""
    seeds = max(len(score.by_seed) for score in found)
    return (
        f"{run.metrics[found[0].metric]} ± standard error · protocol {run.protocol['name']} · "
        f"n={found[0].queries} queries, {seeds} seed{'s' if seeds > 1 else ''}"
    )


def _costs(runs: Mapping[str, Run], task: str) -> Grid:
    protocols = ", ".join(dict.fromkeys(runs[name].protocol["name"] for name in _of(runs, task)))
    found = _of(runs, task)
    return _grid(runs, found, f"{titled(runs, task)} · {_what_costs(found)} · protocol {protocols}", _cost)


def _what_costs(found: Mapping[str, Sequence[Score]]) -> str:
    scores = [score for one in found.values() for score in one]
    what = "median context tokens · median seconds per query, in batches"
    if not all(math.isnan(score.first_token_seconds) for score in scores):
        what += " · median seconds to the first token of one query alone"
    if any(score.memory_bytes is not None for score in scores):
        what += " · GPU memory beyond the model, at most"
    return what


def _of(runs: Mapping[str, Run], task: str) -> dict[str, list[Score]]:
    """A task's scores, by the runs that have some."""
    found = {name: [score for score in run.scores if score.task == task] for name, run in runs.items()}
    return {name: scores for name, scores in found.items() if scores}


def _grid(
    runs: Mapping[str, Run], found: Mapping[str, Sequence[Score]], caption: str, write_cell: Callable[[Score], str]
) -> Grid:
    """Rows are modes (of each run, if there are several), columns are shots."""
    shots = sorted({score.shots for scores in found.values() for score in scores})
    rows = []
    for name, scores in found.items():
        by_place = {(score.mode, score.shots): write_cell(score) for score in scores}
        modes = [mode for mode in LABELS if any(score.mode == mode for score in scores)]
        rows += [(name, LABELS[mode], *(by_place.get((mode, k), "") for k in shots)) for mode in modes]
    head = ("run", "", *(f"k={k}" for k in shots))
    first = 0 if len(runs) > 1 else 1
    return Grid(caption, head[first:], tuple(row[first:] for row in rows), keys=2 - first)


def _value(score: Score) -> str:
    if score.too_long:
        return f"{score.too_long} of {score.queries * len(score.by_seed)} too long"
    if score.refused:
        return f"{score.refused} of {score.queries * len(score.by_seed)} refused"
    if math.isnan(score.value):
        return "not defined"
    error = "" if math.isnan(score.standard_error) else f" ± {score.standard_error:.1f}"
    return f"{score.value:.1f}{error}"


def _cost(score: Score) -> str:
    known = [
        None if math.isnan(score.prompt_tokens) else f"{score.prompt_tokens:.0f}",
        None if math.isnan(score.seconds) else f"{score.seconds:.3g} s",
        None if math.isnan(score.first_token_seconds) else f"{score.first_token_seconds:.3g} s",
        None if score.memory_bytes is None else f"{score.memory_bytes / 2**20:.0f} MiB",
    ]
    return " · ".join(part for part in known if part is not None)


def console(grid: Grid) -> FittedTable:
    """Return one table for the console."""
    rows = [[cell(item, "bold" if LABELS["aim"] in row else "") for item in row] for row in grid.rows]
    return FittedTable(grid.head, rows, title=grid.caption, keys=grid.keys, parts=grid.alike)


def pipe_table(grid: Grid) -> str:
    """Return one table in Markdown, under its caption."""
    lines = [grid.head, ("---",) * len(grid.head), *grid.rows]
    table = "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)
    return f"**{_cell(grid.caption)}**\n\n{table}"


def _cell(text: str) -> str:
    """Escape a text so that it neither ends a cell of a Markdown table nor is read as HTML."""
    return html.escape(" ".join(text.split()), quote=False).replace("|", "\\|")
