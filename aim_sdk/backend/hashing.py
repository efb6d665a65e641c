"""Hashes that identify a backbone, cheap enough for a large one: samples, not whole tensors."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable

import torch
from torch import Tensor

from aim_sdk.support.finite import not_finite

SAMPLES = 64


def tensor_hash(tensors: Iterable[tuple[str, Tensor]], samples: int = SAMPLES) -> str | None:
    """Hash evenly spaced values of named tensors, in name order, rounded to bfloat16.

    A checkpoint loaded in float32 and in bfloat16 has the same hash. In float16 it may have another one, because that
    rounds differently: pass the tensors as the checkpoint holds them. None if a tensor is quantised or offloaded: its
    values cannot be sampled.

    Raises:
        NonFiniteError: a sample is NaN or infinite.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors, key=lambda item: item[0]):
        if not tensor.is_floating_point() or tensor.is_meta or tensor.element_size() < 2:
            return None
        flat = tensor.detach().flatten()
        places = torch.linspace(0, len(flat) - 1, min(samples, len(flat)), dtype=torch.float64).long()
        values = flat[places.to(flat.device)].cpu()
        if not values.isfinite().all():
            raise not_finite(f"the backbone's weights {name or 'input embeddings'!r}", tensor.dtype)
        digest.update(f"{name} {tuple(tensor.shape)} ".encode())
        digest.update(values.to(torch.bfloat16).view(torch.int16).numpy().tobytes())
    return digest.hexdigest()


def rms(embeddings: Tensor) -> float:
    """Root mean square over all values.

    Raises:
        NonFiniteError: it is NaN or infinite.
    """
    found = float(embeddings.detach().float().square().mean().sqrt())
    if not math.isfinite(found):
        raise not_finite("the backbone's input embeddings", embeddings.dtype)
    return found
