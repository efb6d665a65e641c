"""What a run shows while it runs: a bar with loss, tokens a second and time left, or lines where no one looks."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from aim_sdk.training.config import TrainingConfig
from aim_sdk.training.evaluation import Loss, Row


class Progress(AbstractContextManager["Progress"]):
    """Counts what happens between two lines of the log, and shows it."""

    def __init__(self, config: TrainingConfig, step: int, *, show: bool) -> None:
        self._config, self._show = config, show
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._console = Console(stderr=True, quiet=not show, highlight=False)
        self._bar = Bar(*columns, console=self._console, disable=not (show and sys.stderr.isatty()))
        self._task = self._bar.add_task("training", total=config.steps, completed=step, state="")
        self._losses: list[float] = []
        self._tokens, self._since = 0, time.monotonic()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def step(self, step: int, *, loss: float, norm: float, rate: float, tokens: int) -> dict[str, float]:
        """Note one step; every ``log_every`` steps return what is to be logged of them."""
        self._losses.append(loss)
        self._tokens += tokens
        self._bar.update(self._task, completed=step)
        if step % self._config.log_every and step != self._config.steps:
            return {}
        seconds = time.monotonic() - self._since
        mean = sum(self._losses) / len(self._losses)
        pace = self._tokens / seconds if seconds else 0.0
        self._bar.update(self._task, state=f"loss {mean:.3f} · {pace:,.0f} tokens/s")
        if not sys.stderr.isatty():
            left = (self._config.steps - step) * seconds / len(self._losses)
            self._console.print(
                f"step {step}/{self._config.steps}  loss {mean:.4f}  {pace:,.0f} tokens/s  {_clock(left)} left"
            )
        self._losses, self._tokens, self._since = [], 0, time.monotonic()
        return {"loss": mean, "gradient_norm": norm, "rate": rate, "tokens_per_second": round(pace, 1)}

    @contextmanager
    def evaluating(self, total: int) -> Iterator[Callable[[int], None]]:
        """Show how far an evaluation is; its time is not the training's."""
        started = time.monotonic()
        task = self._bar.add_task("evaluating", total=total, state="")
        try:
            yield lambda done: self._bar.advance(task, done)
        finally:
            self._bar.remove_task(task)
            self._since += time.monotonic() - started

    def evaluated(self, step: int, losses: Mapping[Row, Loss], gains: Mapping[Row, Loss]) -> None:
        """Show an evaluation's losses, and by how much aim's is below the others' on the same episodes."""
        aim = losses["aim"]
        self._console.print(f"step {step}, held out (n={aim.n}): aim {aim.mean:.4f} ± {aim.error:.4f}")
        for row, gain in gains.items():
            own = losses[row]
            apart = f"aim - {row} {gain.mean:+.4f} ± {gain.error:.4f}"
            self._console.print(f"    {row} {own.mean:.4f} ± {own.error:.4f}   {apart}")


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
