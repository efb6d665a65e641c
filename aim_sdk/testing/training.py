"""What a projector is trained on: log-probabilities of a batch, prepared ahead, and recomputed activations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from aim_sdk.backend.capabilities import RecomputesActivations, Trainable, capability
from aim_sdk.backend.interfaces import Backend
from aim_sdk.testing.compare import log_probs, require, require_close, require_same_scores
from aim_sdk.testing.kit import check, needs
from aim_sdk.testing.samples import CHOICES, DEMONSTRATIONS, QUERIES
from aim_sdk.types import FusedTokens

_UNEQUAL = ((0, 1, 2), (), (1,))
"""Contexts of one batch, by the demonstrations' places."""


@check
@needs(Trainable)
def check_log_probs_batch(backend: Backend) -> None:
    """A batch of unlike prompts and answers has the log-probabilities of its rows alone, also if prepared ahead.

    Catches padding that is attended to, positions that start at the padding, answers at another row's places.
    """
    form, trainable = backend.default_format, capability(backend, Trainable)
    contexts = [backend.reader.text_only([DEMONSTRATIONS[n] for n in row], prompt_format=form) for row in _UNEQUAL]
    answers = CHOICES[::-1]
    with torch.no_grad():
        for ended in (False, True):
            options: dict[str, Any] = {"prompt_format": form, "ended": ended}
            ahead = trainable.prepare_log_probs(QUERIES, answers, **options)
            alone = [
                log_probs(backend, [query], [context], [answer], **options)[0].tolist()
                for query, context, answer in zip(QUERIES, contexts, answers, strict=True)
            ]
            together = [row.tolist() for row in log_probs(backend, QUERIES, contexts, answers, **options)]
            require_same_scores(together, alone, backend, f"a batch's log-probabilities (ended={ended})")
            late = [row.tolist() for row in trainable.log_probs(ahead, contexts)]
            require_same_scores(late, alone, backend, f"log-probabilities prepared ahead (ended={ended})")


@check
@needs(Trainable, RecomputesActivations)
def check_recomputed_activations(backend: Backend) -> None:
    """Computed again in the backward, activations take less memory and give the same gradients.

    Catches checkpointing that is silently off in eval mode, and recomputation without what was injected.
    """
    form = backend.default_format
    shown = backend.reader.text_only(DEMONSTRATIONS, prompt_format=form)

    def step() -> tuple[Tensor, int]:
        """Return the gradient of the first fused tokens, and how many bytes the forward keeps for it."""
        first = shown[0].embeddings.detach().clone().requires_grad_()
        kept = 0

        def count(tensor: Tensor) -> Tensor:
            nonlocal kept
            kept += tensor.numel() * tensor.element_size()
            return tensor

        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            (logs,) = log_probs(
                backend, QUERIES[:1], [[FusedTokens(first), *shown[1:]]], CHOICES[2:], prompt_format=form
            )
        logs.sum().backward()  # type: ignore[no-untyped-call]
        assert first.grad is not None
        return first.grad, kept

    expected, all_kept = step()
    recomputing = capability(backend, RecomputesActivations)
    try:
        recomputing.recompute_activations()
        found, kept = step()
    finally:
        recomputing.recompute_activations(False)
    require_close(found, expected, backend, "gradients with activations computed again")
    require(kept < all_kept, f"{kept} bytes are kept for the backward; without recomputation {all_kept}")
    _, after = step()
    require(after == all_kept, f"turned off again, {after} bytes are kept; before it was turned on {all_kept}")
