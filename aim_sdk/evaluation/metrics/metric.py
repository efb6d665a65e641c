"""What a metric is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from aim_sdk.evaluation.items import Answered, Item


class MetricWarning(UserWarning):
    """A metric that can be computed, but measures little on these data."""


class Metric(ABC):
    """Turns answers into one number, in the unit that the field prints (0 to 100 for a share, CIDEr x 100)."""

    name: ClassVar[str]
    label: ClassVar[str]
    """For tables and plots, with its unit: ``"VQA accuracy, %"``."""
    closed: ClassVar[bool] = False
    """Whether answers are of a closed set, so that a vote of the nearest demonstrations is a fair baseline."""

    def check(self, items: Sequence[Item]) -> None:  # noqa: B027  # most metrics can score all answers
        """Refuse, before anything is answered, queries whose answers cannot be scored.

        Raises:
            InputError: it names one of them and says what can score it.
        """

    @abstractmethod
    def per_item(self, answered: Sequence[Answered]) -> list[float] | None:
        """Return each answer's own score, whose mean is `score`; None if a score needs several answers."""

    def score(self, answered: Sequence[Answered]) -> float:
        """Return the score of at least one answer; NaN if it is not defined for these (with a single class, say)."""
        scores = self.per_item(answered)
        assert scores is not None
        return sum(scores) / len(scores)
