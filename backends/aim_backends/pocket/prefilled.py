"""Prompts that pocket has run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from aim_backends.pocket.cache import KVCache
from aim_backends.pocket.model import PocketModel


@dataclass
class Prefilled:
    """Prompts that have been run; they go on token by token."""

    model: PocketModel
    cache: KVCache
    mask: Bool[Tensor, "batch tokens"]
    """True on real tokens; padding stands on the left of each part."""
    last: Float[Tensor, "batch one hidden"]
    """Last hidden states at the last position."""
    _logits: Float[Tensor, "batch vocabulary"] | None = None

    @cached_property
    def lengths(self) -> list[int]:
        """Positions of each prompt."""
        found: list[int] = self.mask.sum(1).tolist()
        return found

    @property
    def logits(self) -> Float[Tensor, "batch vocabulary"]:
        """Of what comes next."""
        if self._logits is None:
            self._logits = self.model.lm.head(self.last[:, -1])
        return self._logits

    def step(self, tokens: Sequence[int]) -> None:
        """Run one more token of each."""
        self.lengths  # noqa: B018  # those of the prompts, before they grow
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], 1)
        given = self.model.lm.embed(torch.tensor(tokens, device=self.mask.device)[:, None])
        self.last = self.model.lm(given, attention_mask=self.mask, cache=self.cache)[:, -1:]
        self._logits = None
