"""What a run shows while it runs: loss and tokens per second with its steps, and each evaluation's losses."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from aim_sdk.support.progress import Progress, advancing
from aim_sdk.support.terminal import say
from aim_sdk.training.config import TrainingConfig
from aim_sdk.training.evaluation import TITLES, Estimates


class TrainingProgress(Progress):
    """Counts what happens between two lines of the log, and shows it."""

    def __init__(self, config: TrainingConfig, step: int, *, shown: bool) -> None:
        super().__init__("training, steps", config.steps, done=step, shown=shown)
        self._config = config
        self._losses: list[float] = []
        self._tokens, self._since = 0, time.monotonic()

    def step(self, step: int, *, loss: float, norm: float, rate: float, tokens: int) -> dict[str, float]:
        """Count one step; every ``log_every`` steps, return what is to be logged about them."""
        self._losses.append(loss)
        self._tokens += tokens
        self.advance(1)
        if step % self._config.log_every and step != self._config.steps:
            return {}
        seconds = time.monotonic() - self._since
        mean = sum(self._losses) / len(self._losses)
        pace = self._tokens / seconds if seconds else 0.0
        self.state(f"loss {mean:.4f} · {pace:,.0f} tokens/s")
        self._losses, self._tokens, self._since = [], 0, time.monotonic()
        return {"loss": mean, "gradient_norm": norm, "rate": rate, "tokens_per_second": round(pace, 1)}

    @contextmanager
    def evaluating(self, total: int) -> Iterator[Callable[[int], None]]:
        """Show how far an evaluation is; its time is not the training's."""
        started = time.monotonic()
        try:
            with self.paused(), advancing("evaluating, episodes", total, shown=self._shown) as done:
                yield done
        finally:
            self._since += time.monotonic() - started

    def evaluated(self, step: int, means: Estimates, gains: Estimates) -> None:
        """Show an evaluation's measures, and by how much aim's differ from the others' on the same episodes."""
        if not self._shown:
            return
        for measure, rows in means.items():
            aim = rows["aim"]
            if not aim.n:
                continue
            say(f"step {step}, {TITLES[measure]} (held out, n={aim.n})\n    aim {aim}", err=True)
            for row, gain in gains[measure].items():
                say(f"    {row} {rows[row]}   aim - {row} {gain:+}", err=True)
