"""What a chat answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """One answer."""

    text: str
    """Without surrounding blanks, cut before the first of the stop strings."""
    finish_reason: FinishReason
    """``"stop"``: it came to its end, or to a stop string; ``"length"``: ``max_tokens`` cut it."""
    token_ids: tuple[int, ...] | None
    """All generated ones, also those after a stop string; None if a stream ended at one, or the backend streams text
    alone."""
    log_probs: tuple[float, ...] | None = None
    """The natural-log probability of each of them, if it was asked for."""


@dataclass(frozen=True, slots=True)
class ChatCompletion:
    """The answers to one conversation."""

    answers: tuple[ChatAnswer, ...]
    prompt_tokens: int | None
    """Positions of the prompt in the backbone's context: text, visual and fused tokens together; None where there are
    no token ids."""
    demonstrations: tuple[str, ...]
    """What was shown, as in `Generation.demonstrations`."""
    read: int
    """In mode ``"aim"``, demonstrations that were read for it; those of the bank, and those that were read before, are
    not read again."""

    @property
    def text(self) -> str:
        """The (first) answer's text."""
        return self.answers[0].text

    @property
    def completion_tokens(self) -> int | None:
        """Tokens of all answers; None where they are not known."""
        ids = [answer.token_ids for answer in self.answers]
        return None if None in ids else sum(len(row) for row in ids if row is not None)
