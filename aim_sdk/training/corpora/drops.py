"""What a corpus loses on its way to the trainer, counted by reason."""

from __future__ import annotations

from collections import Counter
from typing import Literal

Unit = Literal["file", "document", "sample", "pair"]


class Dropped(Exception):
    """Something cannot be used, or a filter leaves it out. It is counted, and never leaves this package.

    Args:
        reason: a stable, readable name; no values in it but those of the settings.
        unit: what is lost. For a file, that is everything after the damage.
    """

    def __init__(self, reason: str, unit: Unit = "document") -> None:
        super().__init__(reason)
        self.reason, self.unit = reason, unit


class Drops:
    """Counts by reason, with the place where each first occurred."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.units: dict[str, Unit] = {}
        self.examples: dict[str, str] = {}

    def add(self, lost: Dropped, place: str) -> None:
        """Count one."""
        self.counts[lost.reason] += 1
        self.units.setdefault(lost.reason, lost.unit)
        self.examples.setdefault(lost.reason, place)
