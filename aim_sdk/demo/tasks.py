"""What a backend brings to be demonstrated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from aim_sdk.types import Demonstration, Query


@dataclass(frozen=True, slots=True)
class Episode:
    """A query, demonstrations to choose the first k of, and the answer that counts as right."""

    query: Query
    demonstrations: tuple[Demonstration, ...]
    answer: str
    group: int
    """Episodes of one group share their demonstrations; standard errors are clustered by it."""


@dataclass(frozen=True, slots=True)
class DemoTask:
    """Episodes of one kind, on images that no training saw."""

    name: str
    description: str
    episodes: Sequence[Episode]


@runtime_checkable
class BringsDemo(Protocol):
    """A backend that can be demonstrated."""

    def demo_tasks(self, n: int, *, seed: int) -> list[DemoTask]:
        """Return tasks of ``n`` episodes each."""
