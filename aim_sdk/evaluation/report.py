"""A report of one or more runs: tables on the console, a page in Markdown and one in HTML, with plots."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.table import Table

from aim_sdk.evaluation import plots
from aim_sdk.evaluation.results import Run, Score
from aim_sdk.files import write_atomic
from aim_sdk.modes import LABELS

_PLOTS: Final[dict[str, Callable[[Mapping[str, Run]], bytes]]] = {"scores.png": plots.scores, "costs.png": plots.costs}
_STYLE: Final = (
    "body{font:15px system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem}"
    "table{border-collapse:collapse;margin:1rem 0}"
    "th,td{padding:.25rem .7rem;border-bottom:1px solid #ccc;text-align:left}"
    "img{max-width:100%}caption{text-align:left;font-weight:bold;padding:.3rem 0}"
)


@dataclass(frozen=True, slots=True)
class Grid:
    """One table: what every output is made from."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables(runs: Mapping[str, Run]) -> list[Table]:
    """Return the tables for the console."""
    return [_console(grid) for name, run in runs.items() for grid in grids(name, run)]


def write(runs: Mapping[str, Run], folder: Path) -> list[Path]:
    """Write ``report.md``, ``report.html`` and the plots; return their paths.

    Args:
        runs: by the names that they get in the report.
        folder: made where there is none.
    """
    drawn = {name: draw(runs) for name, draw in _PLOTS.items()}
    pages = {"report.md": markdown(runs).encode(), "report.html": page(runs, drawn).encode()}
    for name, data in (drawn | pages).items():
        write_atomic(folder / name, data)
    return [folder / name for name in drawn | pages]


def markdown(runs: Mapping[str, Run]) -> str:
    """Return the report in Markdown; the plots stand beside it."""
    parts = ["# Few-shot evaluation"]
    for name, run in runs.items():
        parts.append(f"## {_cell(name)}")
        parts.append("\n".join(f"* **{label}**: {_cell(value)}" for label, value in facts(run).items()))
        for grid in grids(name, run):
            head = ["| " + " | ".join(map(_cell, grid.head)) + " |", "|" + "---|" * len(grid.head)]
            rows = ["| " + " | ".join(map(_cell, row)) + " |" for row in grid.rows]
            parts += [f"**{_cell(grid.caption)}**", "\n".join(head + rows)]
    parts += [f"![{name.removesuffix('.png')} over shots]({name})" for name in _PLOTS]
    return "\n\n".join(parts) + "\n"


def page(runs: Mapping[str, Run], drawn: Mapping[str, bytes]) -> str:
    """Return the report as one HTML file that needs no other."""
    body = ["<h1>Few-shot evaluation</h1>"]
    for name, run in runs.items():
        body.append(f"<h2>{html.escape(name)}</h2><ul>")
        body += [f"<li><b>{html.escape(label)}</b>: {html.escape(value)}</li>" for label, value in facts(run).items()]
        body.append("</ul>")
        body += [_html(grid) for grid in grids(name, run)]
    for name, data in drawn.items():
        image = base64.b64encode(data).decode()
        body.append(f'<img alt="{name.removesuffix(".png")} over shots" src="data:image/png;base64,{image}">')
    head = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Few-shot evaluation</title><style>{_STYLE}'
    )
    return f"{head}</style></head><body>\n" + "\n".join(body) + "\n</body></html>\n"


def facts(run: Run) -> dict[str, str]:
    """What a run was made with, in words."""
    left_out = run.settings.get("left_out") or {}
    found = {
        "backbone": f"{run.backbone['model']} (backend {run.backbone['backend']})",
        "projector": f"{run.projector['kind']} {str(run.projector['hash'])[:12]}",
        "protocol": f"{run.protocol['name']}: {run.protocol['description']}",
        "selector": str(run.settings["selector"]),
        "date": run.date,
        "revision": run.revision or "installed package",
        "machine": ", ".join(f"{key} {value}" for key, value in run.machine.items()),
        "versions": ", ".join(f"{key} {value}" for key, value in run.versions.items()),
        "reading demonstrations": f"{run.reading_seconds:.1f} s",
    }
    if left_out:
        found["left out"] = "; ".join(f"{mode}: {reason}" for mode, reason in left_out.items())
    return found


def grids(name: str, run: Run) -> list[Grid]:
    """The tables of a run: one a task, and one of what a query costs."""
    tasks = dict.fromkeys(score.task for score in run.scores)
    return [*(_scores(name, run, task) for task in tasks), *(_costs(name, run, task) for task in tasks)]


def _scores(name: str, run: Run, task: str) -> Grid:
    found = [score for score in run.scores if score.task == task]
    seeds = max(len(score.by_seed) for score in found)
    caption = (
        f"{name} · {task} · {run.metrics[found[0].metric]} ± standard error · protocol {run.protocol['name']} · "
        f"n={found[0].queries} queries, {seeds} seed{'s' if seeds > 1 else ''}"
    )
    return _grid(caption, found, _value)


def _costs(name: str, run: Run, task: str) -> Grid:
    found = [score for score in run.scores if score.task == task]
    caption = f"{name} · {task} · median context tokens · median seconds of a query, in batches · peak memory"
    return _grid(caption, found, _cost)


def _grid(caption: str, found: Sequence[Score], write_cell: Callable[[Score], str]) -> Grid:
    shots = sorted({score.shots for score in found})
    by_place = {(score.mode, score.shots): write_cell(score) for score in found}
    modes = [mode for mode in LABELS if any(score.mode == mode for score in found)]
    rows = tuple((LABELS[mode], *(by_place.get((mode, k), "") for k in shots)) for mode in modes)
    return Grid(caption, ("", *(f"k={k}" for k in shots)), rows)


def _value(score: Score) -> str:
    if score.too_long:
        return f"{score.too_long} of {score.queries * len(score.by_seed)} too long"
    if math.isnan(score.value):
        return "not defined"
    error = "" if math.isnan(score.standard_error) else f" ± {score.standard_error:.1f}"
    return f"{score.value:.1f}{error}"


def _cost(score: Score) -> str:
    known = [
        None if math.isnan(score.prompt_tokens) else f"{score.prompt_tokens:.0f}",
        None if math.isnan(score.seconds) else f"{score.seconds:.3g} s",
        None if score.peak_bytes is None else f"{score.peak_bytes / 2**20:.0f} MiB",
    ]
    return " · ".join(part for part in known if part is not None)


def _console(grid: Grid) -> Table:
    made = Table(*grid.head, title=grid.caption, title_justify="left", box=None, header_style="bold")
    for row in grid.rows:
        made.add_row(*row, style="bold" if row[0] == LABELS["aim"] else None)
    return made


def _html(grid: Grid) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    rows = "".join(line(row, "td") for row in grid.rows)
    return f"<table><caption>{html.escape(grid.caption)}</caption>{line(grid.head, 'th')}{rows}</table>"


def _cell(text: str) -> str:
    """A text that neither ends a cell of a Markdown table nor is read as HTML."""
    return html.escape(" ".join(text.split()), quote=False).replace("|", "\\|")
