"""The demo's tables, shown queries, plot and result file."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from rich.console import Console
from rich.table import Table

from aim_sdk.backend.hashing import versions
from aim_sdk.demo.run import ALL, Cell, Outcome
from aim_sdk.demo.tasks import DemoTask
from aim_sdk.files.atomic import write_atomic
from aim_sdk.files.images import describe
from aim_sdk.pipeline import AIMPipeline
from aim_sdk.support import figures
from aim_sdk.support.machine import machine
from aim_sdk.support.modes import COLOURS, LABELS
from aim_sdk.types import Mode

_WIDEST = max(map(len, LABELS.values()))


def table(cells: Sequence[Cell], task: str) -> Table:
    """Accuracy +- standard error for every mode and k of one task."""
    shots = sorted({cell.shots for cell in cells})
    one = next(cell for cell in cells if cell.task == task)
    title = f"{task} · exact match ± standard error, n={one.n} per cell, {one.sets} sets of demonstrations"
    made = Table("", *(f"k={k}" for k in shots), title=title, title_justify="left", box=None, header_style="bold")
    for mode, label in LABELS.items():
        row = {cell.shots: cell for cell in cells if cell.task == task and cell.mode == mode}
        values = [_accuracy(row[k]) if k in row else "" for k in shots]
        made.add_row(label, *values, style="bold" if mode == "aim" else None)
    return made


def cost_table(cells: Sequence[Cell]) -> Table:
    """Median context tokens and latency for every mode and k."""
    shots = sorted({cell.shots for cell in cells})
    title = "Median context tokens · median latency of one query to its first token (bank warm, images encoded)"
    made = Table("", *(f"k={k}" for k in shots), title=title, title_justify="left", box=None, header_style="bold")
    for mode, label in LABELS.items():
        row = {cell.shots: cell for cell in cells if cell.task == ALL and cell.mode == mode}
        made.add_row(label, *(_cost(row[k]) if k in row else "" for k in shots))
    return made


def _accuracy(cell: Cell) -> str:
    return f"{cell.accuracy:.2f}" + ("" if math.isnan(cell.standard_error) else f" ± {cell.standard_error:.2f}")


def _cost(cell: Cell) -> str:
    latency = "" if cell.latency_ms is None else f" · {cell.latency_ms:.0f} ms"
    return f"{cell.prompt_tokens:.0f}{latency}"


def show_queries(console: Console, tasks: Sequence[DemoTask], outcomes: Sequence[Outcome], shots: int) -> None:
    """Print one query a task: its image, its demonstrations, and what each mode answered."""
    for task in tasks:
        episode = task.episodes[0]
        console.print(f"\n[bold]{task.name}[/]: {task.description}")
        for item in episode.demonstrations[:shots]:
            console.print(f"  demonstration  {_file(item.image)}  {item.text}  →  {item.answer}", highlight=False)
        console.print(
            f"  query          {_file(episode.query.image)}  {episode.query.text}  →  expected {episode.answer}",
            highlight=False,
        )
        for outcome in outcomes:
            if outcome.task == task.name and outcome.episode == 0 and outcome.shots in (0, shots):
                mark = "[green]right[/]" if outcome.correct else "[red]wrong[/]"
                console.print(f"    {LABELS[outcome.mode]:<{_WIDEST + 1}}{outcome.answer!r}  {mark}", highlight=False)


def _file(image: Any) -> str:
    return Path(describe(image)).name


def plot(cells: Sequence[Cell], path: Path) -> None:
    """Draw accuracy over k with error bars, one panel a task, and context tokens over k; as PNG."""
    write_atomic(path, figures.png(figure_of(cells)))


def figure_of(cells: Sequence[Cell]) -> Figure:
    """The figure of `plot`."""
    tasks = [ALL, *dict.fromkeys(cell.task for cell in cells if cell.task != ALL)]
    figure, panels = figures.panels(len(tasks) + 1, columns=len(tasks) + 1, size=(3.6, 3.6))
    for panel, task in zip(panels, tasks, strict=False):
        found = [cell for cell in cells if cell.task == task]
        _lines(panel, found, lambda cell: cell.accuracy, lambda cell: cell.standard_error)
        figures.title(panel, f"{task} (n={found[0].n})")
        reach = [cell.accuracy + sign * cell.standard_error for cell in found for sign in (-1, 1)]
        known = [0.0, 1.0, *(end for end in reach if not math.isnan(end))]
        panel.set_ylim(min(known) - 0.03, max(known) + 0.03)
    panels[0].set_ylabel("exact match")
    _lines(panels[-1], [cell for cell in cells if cell.task == ALL], lambda cell: cell.prompt_tokens)
    figures.title(panels[-1], "context tokens")
    panels[-1].set_ylim(bottom=0)
    shown = [mode for mode in LABELS if any(cell.mode == mode for cell in cells)]
    figures.legend(figure, {LABELS[mode]: Line2D([], [], **_look(mode)) for mode in shown})
    return figure


def _lines(
    panel: Axes,
    cells: Sequence[Cell],
    value: Callable[[Cell], float],
    error: Callable[[Cell], float] = lambda _: math.nan,
) -> None:
    """One line a mode, each a little aside, its dashes of its own: where lines lie on one another, all are seen."""
    shots = sorted({cell.shots for cell in cells})
    for number, mode in enumerate(LABELS):
        row = sorted((cell for cell in cells if cell.mode == mode), key=lambda cell: cell.shots)
        if mode == "zero-shot" and row:
            panel.axhline(value(row[0]), color=COLOURS[mode], linestyle=":")
        elif row:
            places = [figures.aside(cell.shots, 0.06 * (number - len(LABELS) // 2), shots) for cell in row]
            panel.errorbar(places, list(map(value, row)), list(map(error, row)), capsize=2, **_look(mode))
    figures.shots_axis(panel, shots)


def _look(mode: Mode) -> dict[str, Any]:
    if mode == "zero-shot":
        return {"color": COLOURS[mode], "linestyle": ":"}
    number = (list(LABELS).index(mode) - list(LABELS).index("aim")) % len(LABELS)  # AIM's is the solid one
    return {"color": COLOURS[mode], "zorder": 3 if mode == "aim" else 2, **figures.style(number).options}


def write_result(
    path: Path,
    pipe: AIMPipeline,
    tasks: Sequence[DemoTask],
    outcomes: Sequence[Outcome],
    cells: Sequence[Cell],
    settings: dict[str, Any],
) -> None:
    """Write everything that was measured, with the episodes, versions and machine, as one JSON file."""
    result = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "settings": settings,
        "metric": "exact match of the greedy answer, ignoring case; standard errors clustered by demonstration set, "
        "null where they cannot be estimated",
        "backbone": pipe.backend.fingerprint.model_dump(),
        "projector": {"kind": pipe.projector.kind, "summary": pipe.projector.summary},
        "versions": {"python": platform.python_version(), **versions("aim-icl", "torch")},
        "machine": machine(),
        "cells": [_record(cell) for cell in cells],
        "episodes": {
            task.name: [
                {
                    "query": [_file(episode.query.image), episode.query.text],
                    "demonstrations": [[_file(d.image), d.text, d.answer] for d in episode.demonstrations],
                    "answer": episode.answer,
                }
                for episode in task.episodes
            ]
            for task in tasks
        },
        "answers": [dataclasses.asdict(outcome) for outcome in outcomes],
    }
    write_atomic(path, (json.dumps(result, indent=1) + "\n").encode())


def _record(cell: Cell) -> dict[str, Any]:
    return {
        name: None if value != value else value for name, value in dataclasses.asdict(cell).items()
    }  # NaN is no JSON
