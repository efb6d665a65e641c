"""What a projector may take from readings before it is trained; `aim-icl train` asks for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

from aim_sdk.types import Reading


@runtime_checkable
class Calibrates(Protocol):
    """A projector that takes something from typical readings (such as a mean) before it is trained."""

    def calibrate(self, readings: Sequence[Reading]) -> None:
        """Take it."""


@runtime_checkable
class Fits(Protocol):
    """A projector that can be fitted to readings before its first step of training, without a gradient."""

    def fit(self, readings: Iterable[Reading]) -> int:
        """Fit it; return to how many readings, 0 if they or its options do not allow it."""
