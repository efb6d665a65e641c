"""What a student learns from: an answer's tokens, and what its teacher would have said at each of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Target:
    """A teacher's distributions at an answer's positions: its likeliest tokens, and all others as one.

    ``top`` holds the natural logs of the likeliest tokens' probabilities, ``rest`` that of the sum of all others. A
    whole distribution has no ``ids``: then ``top`` is as wide as the vocabulary, and ``rest`` is not used.
    """

    token_ids: Int[Tensor, " tokens"]
    """The answer, as the teacher's prompt continues with it."""
    top: Float[Tensor, "tokens top"]
    ids: Int[Tensor, "tokens top"] | None = None
    rest: Float[Tensor, " tokens"] | None = None

    @classmethod
    def of(cls, token_ids: Int[Tensor, " tokens"], logits: Float[Tensor, "tokens vocabulary"], top: int) -> Target:
        """Keep the ``top`` likeliest tokens of each distribution; 0: all."""
        log_probs = logits.float().log_softmax(-1)
        if not 0 < top < log_probs.shape[-1]:
            return cls(token_ids, log_probs)
        values, ids = log_probs.topk(top, -1)
        return cls(token_ids, values, ids, _others(log_probs, ids))

    def divergence(self, logits: Float[Tensor, "tokens vocabulary"]) -> Float[Tensor, " tokens"]:
        """The Kullback-Leibler divergence from the student's distributions to these, in nats per token.

        With the rest as one token it is at most that of the whole distributions (the data processing inequality).
        """
        log_probs = logits.float().log_softmax(-1)
        if self.ids is None or self.rest is None:
            return F.kl_div(log_probs, self.top, log_target=True, reduction="none").sum(-1)
        known = F.kl_div(log_probs.gather(-1, self.ids), self.top, log_target=True, reduction="none").sum(-1)
        return known + F.kl_div(_others(log_probs, self.ids), self.rest, log_target=True, reduction="none")

    def to(self, device: torch.device) -> Target:
        """The same on a device."""
        moved = (None if part is None else part.to(device) for part in (self.ids, self.rest))
        return Target(self.token_ids.to(device), self.top.to(device), *moved)


def _others(log_probs: Float[Tensor, "tokens vocabulary"], ids: Int[Tensor, "tokens top"]) -> Float[Tensor, " tokens"]:
    """The log of the probability of all tokens but these."""
    return log_probs.scatter(-1, ids, -torch.inf).logsumexp(-1)
