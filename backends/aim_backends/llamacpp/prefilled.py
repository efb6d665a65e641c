"""Prompts that llama.cpp has run."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from aim_backends.llamacpp.context import LlamaContext


class Prefilled:
    """They continue token by token. A context manager: memory is free after it.

    Args:
        context: it holds them.
        logits: after each.
    """

    def __init__(self, context: LlamaContext, logits: Float[Tensor, "batch vocabulary"]) -> None:
        self._context, self.logits = context, logits
        self.lengths = context.lengths
        """Positions of each prompt."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._context.close()

    def step(self, tokens: Sequence[int]) -> None:
        """Run one more token of each; `logits` are then those after it."""
        self.logits = self._context.step(tokens)

    def log_probs(self, place: int, tokens: Sequence[int]) -> list[float]:
        """Of tokens as the answer to a prompt, which stays as it is."""
        logits = self.logits[place : place + 1]
        if len(tokens) > 1:
            logits = torch.cat([logits, self._context.follow(place, tokens[:-1])])
        found: list[float] = logits.log_softmax(-1)[range(len(tokens)), tokens].tolist()
        return found
