"""What was prepared for a forward: values that can be printed and counted, and that wait for the backbone."""

from __future__ import annotations

from dataclasses import dataclass

from aim_sdk.config import PromptFormat
from aim_sdk.types import Query


@dataclass(frozen=True)
class PreparedAnswers:
    """Queries and what is to be answered, of which all is done that needs no backbone.

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
