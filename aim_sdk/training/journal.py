"""What a run logs: lines of JSON, TensorBoard, and a plot of its losses.

``log.jsonl`` holds one object per line: ``{"step", "loss", ...}`` of training, ``{"step", "evaluation": {row: {"mean",
"error", "n"}}, "aim_minus": {row: ...}}`` of an evaluation with its paired differences. Lines after the checkpoint
that a run resumes from are removed: every step appears once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from aim_sdk.files.atomic import write_atomic, writing
from aim_sdk.support import figures
from aim_sdk.training.checkpoint import KEPT
from aim_sdk.training.evaluation import Loss, Row

LOG = "log.jsonl"
PLOT = "loss.png"


class TrainingJournal:
    """The log of one run, from a step on."""

    def __init__(self, output: Path, step: int) -> None:
        self._output, self._path = output, output / LOG
        self.lines = [line for line in read_log(output) if line["step"] <= step]
        with writing(output, KEPT):
            write_atomic(self._path, "".join(map(_line, self.lines)).encode())
            self._file = self._path.open("a", encoding="utf-8")
            self._board: Any = SummaryWriter(str(output / "tensorboard"), purge_step=step + 1 if step else None)

    def training(self, step: int, **values: float) -> None:
        """Note some steps' mean loss and what goes with it."""
        self._write({"step": step, **values})
        self._show({f"training/{name}": value for name, value in values.items()}, step)

    def evaluation(self, step: int, losses: Mapping[Row, Loss], gains: Mapping[Row, Loss]) -> None:
        """Note an evaluation, and draw the plot again."""
        self._write({"step": step, "evaluation": _plain(losses), "aim_minus": _plain(gains)})
        self._show({f"evaluation/{row}": loss.mean for row, loss in losses.items()}, step)
        self.plot()

    def evaluated(self, step: int) -> bool:
        """Whether a step's evaluation is noted."""
        return any(line["step"] == step and "evaluation" in line for line in self.lines)

    def plot(self) -> None:
        """Draw all losses over the steps."""
        plot(self.lines, self._output / PLOT)

    def close(self) -> None:
        """Close the log. Failed writes were reported already, or concern TensorBoard only."""
        for file in (self._file, self._board):
            with suppress(OSError):
                file.close()

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
    """Draw a log: the training loss, and each row of the evaluations with its standard error."""
    figure, (axes,) = figures.panels(1, size=(7, 4.2))
    trained = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    if trained:
        axes.plot(
            *zip(*trained, strict=True), color="0.7", linewidth=1, label="training (different episodes each step)"
        )
    evaluations = [line for line in lines if "evaluation" in line]
    for row in evaluations[0]["evaluation"] if evaluations else ():
        steps = [line["step"] for line in evaluations]
        means, errors = ([line["evaluation"][row][key] for line in evaluations] for key in ("mean", "error"))
        look = figures.style(len(axes.containers)).options  # rows whose losses are equal are told apart
        axes.errorbar(steps, means, errors, capsize=2, label=f"held out: {row}", **look)
    axes.set(xlabel="step", ylabel="loss, nats per token")
    axes.grid(alpha=0.3)
    handles, labels = axes.get_legend_handles_labels()
    figures.legend(figure, dict(zip(labels, handles, strict=True)))
    write_atomic(path, figures.png(figure))


def _plain(losses: Mapping[Row, Loss]) -> dict[str, dict[str, float]]:
    return {row: {"mean": loss.mean, "error": loss.error, "n": loss.n} for row, loss in losses.items()}


def _line(line: dict[str, Any]) -> str:
    return json.dumps(line) + "\n"
