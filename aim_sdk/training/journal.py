"""What a run logs: lines of JSON, TensorBoard, and a plot of its losses.

``log.jsonl`` holds one object per line: ``{"step", "loss", ...}`` of training, ``{"step", "evaluation": {measure: {row:
{"mean", "error", "n"}}}, "aim_minus": {measure: {row: ...}}}`` of an evaluation with its paired differences. Lines
after the checkpoint that a run resumes from are removed: every step appears once.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from aim_sdk.files.atomic import write_atomic, writing
from aim_sdk.support import figures
from aim_sdk.training.checkpoint import KEPT
from aim_sdk.training.evaluation import TITLES, Estimates

LOG = "log.jsonl"
PLOT = "loss.png"
_DRAWN = 10
"""Seconds between two drawings at least: each takes about one."""
_MARKED = 30
"""Fewer steps of a loss have a marker each: a single one is seen, too."""


class TrainingJournal:
    """The log of one run, from a step on.

    Args:
        output: the run's folder.
        step: the last one that is kept; -1: none, the log starts over.
        every: steps between two evaluations, if there are any: one at another step was the last of a shorter run.
    """

    def __init__(self, output: Path, step: int, every: int = 0) -> None:
        self._output, self._path, self._drawn, self._step = output, output / LOG, -math.inf, step
        kept = (line for line in read_log(output) if line["step"] <= step)
        self.lines = [line for line in kept if not (every and "evaluation" in line and line["step"] % every)]
        with writing(output, KEPT):
            write_atomic(self._path, "".join(map(_line, self.lines)).encode())
            self._file = self._path.open("a", encoding="utf-8")

    def training(self, step: int, **values: float) -> None:
        """Note some steps' mean loss and what goes with it."""
        self._write({"step": step, **values})
        self._show({f"training/{name}": value for name, value in values.items()}, step)

    def evaluation(self, step: int, means: Estimates, gains: Estimates) -> None:
        """Note an evaluation, and draw the plot again, unless it was drawn a moment ago."""
        self._write({"step": step, "evaluation": _plain(means), "aim_minus": _plain(gains)})
        for measure, rows in means.items():
            self._show({f"{measure}/{row}": found.mean for row, found in rows.items() if found.n}, step)
        if time.monotonic() - self._drawn > _DRAWN:
            self.plot()

    def plot(self) -> None:
        """Draw all losses over the steps."""
        plot(self.lines, self._output / PLOT)
        self._drawn = time.monotonic()

    def close(self) -> None:
        """Close the log. Failed writes were reported already, or concern TensorBoard only."""
        boards = [self._board] if "_board" in self.__dict__ else []
        for file in (self._file, *boards):
            with suppress(OSError):
                file.close()

    @cached_property
    def _board(self) -> Any:
        """TensorBoard's file, made when there is something to write."""
        purged = self._step + 1 if self._step > 0 else None
        return SummaryWriter(str(self._output / "tensorboard"), purge_step=purged)

    def _write(self, line: dict[str, Any]) -> None:
        self.lines.append(line)
        with writing(self._path, KEPT):
            self._file.write(_line(line))
            self._file.flush()

    def _show(self, values: Mapping[str, float], step: int) -> None:
        with writing(self._output / "tensorboard", KEPT):
            for name, value in values.items():
                self._board.add_scalar(name, value, step)


def read_log(output: Path) -> list[dict[str, Any]]:
    """Read a run's log; a line that a crash has cut is left out."""
    path = output / LOG
    lines = []
    for text in path.read_bytes().splitlines() if path.exists() else ():
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict) and isinstance(line.get("step"), int):
            lines.append(line)
    return lines


def plot(lines: list[dict[str, Any]], path: Path) -> None:
    """Draw a log: the training loss, and each measure of the evaluations by row, with its standard error."""
    evaluations = [line for line in lines if "evaluation" in line]
    measures = [m for m in TITLES if any(row["n"] for line in evaluations for row in line["evaluation"][m].values())]
    figure, (first, *others) = figures.panels(1 + len(measures), columns=2, size=(5.2, 3.6))
    trained = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    if trained:
        marker = "o" if len(trained) < _MARKED else ""
        first.plot(*zip(*trained, strict=True), color="0.5", linewidth=1, marker=marker, markersize=4)
    first.set(title="training (other episodes each step)", ylabel="objective, nats per token")
    figures.steps_axis(first, [step for step, _ in trained])
    legend: dict[str, Any] = {}
    for axes, measure in zip(others, measures, strict=True):
        found = evaluations[0]["evaluation"][measure]
        rows, steps = [row for row in found if found[row]["n"]], [line["step"] for line in evaluations]
        apart = min(0.01 * max(steps[-1] - steps[0], 2), *(0.15 * (b - a) for a, b in pairwise(steps)), 1.0)
        for place, row in enumerate(rows):
            places = [step + apart * (place - (len(rows) - 1) / 2) for step in steps]
            values = [line["evaluation"][measure][row] for line in evaluations]
            means, errors = ([_number(value[key]) for value in values] for key in ("mean", "error"))
            drawn = axes.errorbar(places, means, errors, capsize=2, **figures.style(place).options)
            legend.setdefault(row, drawn)
        axes.set(title=f"held out: {TITLES[measure]}")
        figures.steps_axis(axes, steps)
    figures.legend(figure, legend)
    write_atomic(path, figures.png(figure))


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _plain(estimates: Estimates) -> dict[str, dict[str, dict[str, float | None]]]:
    """As JSON has it: what is not a number is null."""
    return {
        measure: {
            row: {name: None if math.isnan(value) else value for name, value in asdict(found).items()}
            for row, found in rows.items()
        }
        for measure, rows in estimates.items()
    }


def _line(line: dict[str, Any]) -> str:
    return json.dumps(line) + "\n"
