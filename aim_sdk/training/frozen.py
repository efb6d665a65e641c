"""Proof that training leaves the backbone as it is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

import torch
from torch import Tensor, nn

from aim_sdk.errors import TrainingError

_CHUNK: Final = 64 << 20
"""Bytes on the CPU at a time."""


def check_frozen(modules: Iterable[nn.Module]) -> None:
    """Refuse a backbone that could learn.

    Raises:
        TrainingError: a parameter requires a gradient.
    """
    wants = [name for module in modules for name, p in module.named_parameters() if p.requires_grad]
    if wants:
        raise TrainingError(
            f"the backbone is not frozen: {len(wants)} of its parameters require gradients, {wants[0]} for example. "
            "Next: the backend's from_pretrained must call requires_grad_(False)."
        )


@torch.no_grad()
def checksum(modules: Iterable[nn.Module]) -> str:
    """SHA-256 of the names, shapes and bits of all parameters and buffers, in order.

    One part at a time is copied to the CPU: about ten seconds for a model of 7 B parameters, twice per training.
    """
    total = hashlib.sha256()
    for module in modules:
        for name, value in module.state_dict(keep_vars=True).items():
            if isinstance(value, Tensor):
                total.update(f"{name} {tuple(value.shape)} {value.dtype} ".encode())
                local = value.to_local() if hasattr(value, "to_local") else value  # a shard of FSDP's
                for part in local.detach().contiguous().view(-1).view(torch.uint8).split(_CHUNK):
                    total.update(part.cpu().numpy())
    return total.hexdigest()
