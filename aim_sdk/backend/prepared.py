"""What was prepared for a forward: values that can be printed and counted, and that wait for the backbone."""

from __future__ import annotations

from dataclasses import dataclass

from aim_sdk.config import PromptFormat
from aim_sdk.types import Demonstration, Query


@dataclass(frozen=True)
class PreparedReadings:
    """Demonstrations to be read; all work that needs no backbone is done.

    A backend that has decoded and tokenised more than this adds it in a subclass, and gets it back in `DemoReader.run`.
    """

    demonstrations: tuple[Demonstration, ...]
    prompt_format: PromptFormat
    with_images: bool
    """False: their texts alone are read (the no-image control)."""
    layers: tuple[int, ...]
    """Which layers are wanted, counted as in `aim_sdk.layers`."""
    positions: int
    """Of the forward, padding and visual tokens included; an estimate if the reader's `lengths` are."""

    def __len__(self) -> int:
        return len(self.demonstrations)


@dataclass(frozen=True)
class PreparedAnswers:
    """Queries and the answers to score; all work that needs no backbone is done.

    A backend that has decoded and tokenised more than this adds it in a subclass, and gets it back in `log_probs`.
    """

    queries: tuple[Query, ...]
    answers: tuple[str, ...]
    """One for each query."""
    prompt_format: PromptFormat
    ended: bool = False
    """Whether the first token that the format writes after an answer belongs to it."""

    def __len__(self) -> int:
        return len(self.queries)
