"""What a metric is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from aim_sdk.evaluation.items import Answered


class Metric(ABC):
    """Turns answers into one number, in the unit that the field prints (0 to 100 for a share, CIDEr x 100)."""

    name: ClassVar[str]
    label: ClassVar[str]
    """For tables and plots, with its unit: ``"VQA accuracy, %"``."""

    @abstractmethod
    def per_item(self, answered: Sequence[Answered]) -> list[float] | None:
        """Return each answer's own score, whose mean is `score`; None where a score needs several answers."""

    def score(self, answered: Sequence[Answered]) -> float:
        """Return the score of at least one answer; NaN where it is not defined on these (one class, say)."""
        scores = self.per_item(answered)
        assert scores is not None
        return sum(scores) / len(scores)
