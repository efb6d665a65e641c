"""What a corpus loses on its way to the trainer, counted by reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final, Literal

Unit = Literal["file", "document", "sample", "pair"]


_CURES: Final = {
    "image smaller than": ("a smaller {}", "min_image_bytes"),
    "similarity below": ("a smaller {}", "min_similarity"),
    "image missing": ("{} with their folder", "images"),
    "fewer than": ("a smaller {}", "min_pairs"),
}
"""What changes the outcome, and its setting, by how the reason begins."""


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

    def cures(self, named: Callable[[str], str]) -> str:
        """The settings to change, for the most common reasons first; reasons about pairs come before all others.

        Args:
            named: how a setting of the corpus is called there.
        """
        reasons = sorted(self.counts, key=lambda reason: (self.units[reason] != "pair", -self.counts[reason]))
        return "; or ".join(
            f"{change.format(named(setting))} ({reason})"
            for reason in reasons
            for start, (change, setting) in _CURES.items()
            if reason.startswith(start)
        )
