"""What was prepared for a forward, which can be printed and counted, and waits for the backbone; and what it gave."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

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

    A backend that has decoded and tokenised more than this adds it in a subclass, and gets it back in `answer_logits`.
    """

    queries: tuple[Query, ...]
    answers: tuple[str, ...]
    """One for each query."""
    token_ids: tuple[tuple[int, ...], ...]
    """The tokens of each answer, as they stand after its query without demonstrations."""
    prompt_format: PromptFormat
    ended: bool = False
    """Whether the first token that the format writes after an answer belongs to it."""

    def __len__(self) -> int:
        return len(self.queries)


@dataclass(frozen=True, slots=True)
class AnswerLogits:
    """What the backbone says at the positions that predict one answer's tokens."""

    token_ids: Int[Tensor, " tokens"]
    """The answer's tokens as they stand after this context, on the device of the logits."""
    logits: Float[Tensor, "tokens vocabulary"]
    """Row n predicts token n: as the model gives them, in the backbone's dtype. Gradients flow to the fused tokens."""

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def log_probs(self) -> Float[Tensor, " tokens"]:
        """Of each token of the answer (natural log), computed in float32."""
        return -F.cross_entropy(self.logits.float(), self.token_ids, reduction="none")
