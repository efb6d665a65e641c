"""AdamW over a projector's parameters, and its learning rate at each step."""

from __future__ import annotations

import math

import torch

from aim_sdk.projectors.base import Projector
from aim_sdk.training.config import OptimizerSettings


def build(projector: Projector, settings: OptimizerSettings) -> torch.optim.AdamW:
    """One group for each rate at which the projector's parameters learn; gains and gates do not decay."""
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, parameter in projector.named_parameters():
        decay = settings.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((projector.rate(name), decay), []).append(parameter)
    listed = [{"params": group, "rate": rate, "weight_decay": decay} for (rate, decay), group in groups.items()]
    return torch.optim.AdamW(listed, lr=settings.learning_rate, betas=settings.betas)


def set_rate(optimizer: torch.optim.Optimizer, settings: OptimizerSettings, step: int, steps: int) -> float:
    """Set the rates of the step-th of ``steps`` (from 1): a linear warm-up, then a cosine; return the base rate."""
    warm = max(1, round(settings.warm_up * steps))
    done = max(0.0, (step - warm) / max(1, steps - warm))
    cosine = settings.final_rate + (1 - settings.final_rate) * (1 + math.cos(math.pi * done)) / 2
    base = settings.learning_rate * min(1.0, step / warm) * cosine
    for group in optimizer.param_groups:
        group["lr"] = base * group["rate"]
    return base
