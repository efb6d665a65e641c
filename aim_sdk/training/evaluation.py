"""The loss on held-out episodes, next to its controls: what do demonstrations contribute, and what their images?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

import torch

from aim_sdk.training.episodes import Episode
from aim_sdk.training.forward import Forward, Work
from aim_sdk.types import FusedTokens

Row = Literal["aim", "no-image", "text-only", "zero-shot"]
ROWS: Final[tuple[Row, ...]] = get_args(Row)
FIXED: Final[frozenset[Row]] = frozenset({"text-only", "zero-shot"})
"""What does not depend on the projector: measured once."""

Scores = list[tuple[float, int]]
"""Each episode's summed loss and number of tokens; no tokens if it cannot be used."""


@dataclass(frozen=True, slots=True)
class Loss:
    """Nats per token of the answers, with its standard error over ``n`` episodes."""

    mean: float
    error: float
    n: int

    def __format__(self, sign: str) -> str:
        """The mean and its error; with one episode there is no error, and without episodes there is neither."""
        if not self.n:
            return "not measured: no episode could be used"
        mean = f"{self.mean:{sign}.4f}"
        return f"{mean} (one episode: no standard error)" if math.isnan(self.error) else f"{mean} ± {self.error:.4f}"


def score(
    forward: Forward, episodes: Sequence[Episode], rows: Sequence[Row], batch_size: int, done: Callable[[int], None]
) -> dict[Row, Scores]:
    """Score episodes in the way of each row."""
    found: dict[Row, Scores] = {row: [] for row in rows}
    for start in range(0, len(episodes), batch_size):
        batch = episodes[start : start + batch_size]
        for row in rows:
            found[row] += _scores(forward, batch, row)
        done(len(batch))
    return found


def summarize(scores: Scores) -> Loss:
    """The mean over all tokens, and its standard error with episodes as clusters (a ratio of two means)."""
    used = torch.tensor([pair for pair in scores if pair[1]], dtype=torch.float64)
    if not len(used):
        return Loss(float("nan"), float("nan"), 0)
    losses, tokens = used.T
    mean = losses.sum() / tokens.sum()
    if len(used) == 1:
        return Loss(float(mean), float("nan"), 1)
    error = (losses - mean * tokens).std() / tokens.mean() / len(used) ** 0.5
    return Loss(float(mean), float(error), len(used))


def difference(scores: Scores, others: Scores) -> Loss:
    """The difference in loss to another row, paired by episode; the error is that of the difference."""
    pairs = zip(scores, others, strict=True)
    return summarize([(loss - other, tokens) for (loss, tokens), (other, same) in pairs if tokens == same])


@torch.no_grad()
def _scores(forward: Forward, batch: Sequence[Episode], row: Row) -> Scores:
    work = forward.prepare(batch)
    log_probs = (
        forward.run(work).log_probs if row == "aim" else forward.log_probs(work.answers, _contexts(forward, work, row))
    )
    places = {id(episode.demonstrations): place for place, episode in enumerate(batch)}
    scores: Scores = [(0.0, 0)] * len(batch)
    for episode, found in zip(work.episodes, log_probs, strict=True):
        scores[places[id(episode.demonstrations)]] = -float(found.double().sum()), len(found)
    return scores


def _contexts(forward: Forward, work: Work, row: Row) -> list[list[FusedTokens]]:
    if row == "zero-shot":
        return [[] for _ in work.episodes]
    return forward.text_only(work) if row == "text-only" else forward.read_without_images(work)
