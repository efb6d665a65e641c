"""The demo's tables, shown queries, plot and result file."""

from __future__ import annotations

import dataclasses
import datetime
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from aim_sdk.demo.run import ALL, MODES, Cell, Outcome
from aim_sdk.demo.tasks import DemoTask
from aim_sdk.files import write_atomic
from aim_sdk.fingerprint import versions
from aim_sdk.images import describe
from aim_sdk.machine import machine
from aim_sdk.modes import COLOURS, LABELS
from aim_sdk.pipeline import AIMPipeline


def table(cells: Sequence[Cell], task: str) -> Table:
    """Accuracy +- standard error for every mode and k of one task."""
    shots = sorted({cell.shots for cell in cells})
    n = next(cell.n for cell in cells if cell.task == task)
    title = f"{task} · exact match ± standard error, n={n} a cell"
    made = Table("", *(f"k={k}" for k in shots), title=title, title_justify="left", box=None, header_style="bold")
    for mode, label in LABELS.items():
        row = {cell.shots: cell for cell in cells if cell.task == task and cell.mode == mode}
        values = [f"{row[k].accuracy:.2f} ± {row[k].standard_error:.2f}" if k in row else "" for k in shots]
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
                console.print(f"    {LABELS[outcome.mode]:<30}{outcome.answer!r}  {mark}", highlight=False)


def _file(image: Any) -> str:
    return Path(describe(image)).name


def plot(cells: Sequence[Cell], path: Path) -> None:
    """Draw accuracy over k with error bars, one panel a task, and context tokens over k."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shots = sorted({cell.shots for cell in cells})
    tasks = [ALL, *dict.fromkeys(cell.task for cell in cells if cell.task != ALL)]
    figure = Figure(figsize=(4 * (len(tasks) + 1), 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(tasks) + 1)
    for panel, task in zip(panels, tasks, strict=False):
        zero = next(cell for cell in cells if cell.task == task and cell.mode == "zero-shot")
        panel.axhline(zero.accuracy, color="black", linestyle=":", label=LABELS["zero-shot"])
        for mode in MODES:
            row = sorted((cell for cell in cells if cell.task == task and cell.mode == mode), key=lambda c: c.shots)
            panel.errorbar(
                [cell.shots for cell in row],
                [cell.accuracy for cell in row],
                [cell.standard_error for cell in row],
                color=COLOURS[mode],
                marker="o",
                capsize=2,
                linestyle="--" if mode == "no-image" else "-",
                label=LABELS[mode],
            )
        panel.set(title=f"{task} (n={zero.n})", xlabel="shots k", ylim=(-0.03, 1.03))
        panel.set_xscale("symlog", base=2, linthresh=1)
        panel.set_xticks(shots, [str(k) for k in shots])
    panels[0].set_ylabel("exact match")
    for mode in MODES:
        row = sorted((cell for cell in cells if cell.task == ALL and cell.mode == mode), key=lambda c: c.shots)
        panels[-1].plot([c.shots for c in row], [c.prompt_tokens for c in row], color=COLOURS[mode], marker="o")
    panels[-1].set(title="context tokens", xlabel="shots k")
    panels[0].legend(fontsize=7)
    figure.savefig(path, dpi=120)


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
        "metric": "exact match of the greedy answer, ignoring case; standard errors clustered by demonstration set",
        "backbone": pipe.backend.fingerprint.model_dump(),
        "projector": {"kind": pipe.projector.kind, "summary": pipe.projector.summary},
        "versions": {"python": platform.python_version(), **versions("aim-icl", "torch")},
        "machine": machine(),
        "cells": [dataclasses.asdict(cell) for cell in cells],
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
