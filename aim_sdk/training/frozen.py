"""Proof that training leaves the backbone as it is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from aim_sdk.errors import TrainingError


def check_frozen(modules: Iterable[nn.Module]) -> None:
    """Refuse a backbone that could learn.

    Raises:
        TrainingError: a parameter wants a gradient.
    """
    wants = [name for module in modules for name, p in module.named_parameters() if p.requires_grad]
    if wants:
        raise TrainingError(
            f"the backbone is not frozen: {len(wants)} of its parameters want gradients, {wants[0]} for one. "
            "Next: the backend's from_pretrained must call requires_grad_(False)."
        )


@torch.no_grad()
def checksum(modules: Iterable[nn.Module]) -> str:
    """SHA-256 of a hash of every parameter and buffer, all their bits, in order; computed where they are."""
    total = hashlib.sha256()
    for module in modules:
        for name, value in module.state_dict(keep_vars=True).items():
            if isinstance(value, Tensor):
                total.update(f"{name} {tuple(value.shape)} {_hash(value.detach())}".encode())
    return total.hexdigest()


def _hash(value: Tensor) -> int:
    local = value.to_local() if hasattr(value, "to_local") else value  # a shard of FSDP's
    raw = local.contiguous().view(-1).view(torch.uint8)
    words = raw.view(torch.int32) if len(raw) % 4 == 0 else raw
    total = 0
    for start, chunk in zip(range(0, len(words), _CHUNK), words.split(_CHUNK), strict=True):
        # Weighted by place: a sum alone does not see two numbers that change places.
        weights = torch.arange(start + 1, start + 1 + len(chunk), device=chunk.device) * 0x9E3779B1
        total += int((chunk.to(torch.int64) * weights).sum())
    return total


_CHUNK = 1 << 24
