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
    if raw.storage_offset() % 4:  # a part of another tensor
        raw = raw.clone()
    words = raw.view(torch.int32) if len(raw) % 4 == 0 else raw
    total = 0
    for start in range(0, len(words), _CHUNK):
        chunk = words[start : start + _CHUNK]
        # Place and word become one number, which SplitMix64's finalizer mixes one to one: a weighted sum of the words
        # themselves does not see numbers that are evenly spaced change places, 1, 2, 1.5 and 1.5, 1, 2 say.
        mixed = torch.arange(start, start + len(chunk), device=chunk.device) << 32
        mixed += chunk
        for shift, factor in _MIX:
            mixed ^= (mixed >> shift) & ((1 << 64 - shift) - 1)
            mixed *= factor
        mixed ^= (mixed >> 31) & ((1 << 33) - 1)
        total += int(mixed.sum())
    return total % 2**64


_MIX = ((30, 0xBF58476D1CE4E5B9 - 2**64), (27, 0x94D049BB133111EB - 2**64))
_CHUNK = 1 << 20  # fits a cache
