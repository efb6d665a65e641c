"""Adam over a projector's parameters: its learning rates at each step, and its decay towards the start."""

from __future__ import annotations

import math

import torch

from aim_sdk.errors import InputError
from aim_sdk.projectors.base import Projector
from aim_sdk.training.config import OptimizerSettings
from aim_sdk.training.low_rank import plain_name


def build(projector: Projector, settings: OptimizerSettings) -> torch.optim.Adam:
    """One group for each rate at which the projector's parameters learn.

    Raises:
        InputError: the decay would undo every step.
    """
    groups: dict[float, list[torch.nn.Parameter]] = {}
    for name, parameter in projector.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(projector.rate(plain_name(name)), []).append(parameter)
    listed = [{"params": group, "rate": rate} for rate, group in groups.items()]
    fastest = base_rate(projector, settings) * max(groups, default=0.0)
    if fastest * settings.weight_decay >= 1:
        raise InputError(
            f"optimizer.weight_decay: {settings.weight_decay:g} times the highest learning rate, {fastest:g}, is 1 or "
            "more: every step would go all the way back to the start. Next: a smaller weight_decay (0.01)."
        )
    return torch.optim.Adam(listed, lr=base_rate(projector, settings), betas=settings.betas)


def base_rate(projector: Projector, settings: OptimizerSettings) -> float:
    """The highest rate of parameters whose factor is 1: the setting's or, without one, the kind's."""
    return projector.learning_rate if settings.learning_rate is None else settings.learning_rate


def set_rate(
    optimizer: torch.optim.Optimizer, base: float, settings: OptimizerSettings, step: int, steps: int
) -> float:
    """Set the rates of the step-th of ``steps`` (from 1): a linear warm-up, then a cosine; return the base rate."""
    warm = max(1, round(settings.warm_up * steps))
    done = max(0.0, (step - warm) / max(1, steps - warm))
    cosine = settings.final_rate + (1 - settings.final_rate) * (1 + math.cos(math.pi * done)) / 2
    rate = base * min(1.0, step / warm) * cosine
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate"]
    return rate


@torch.no_grad()
def decay_towards(start: Projector, projector: Projector, optimizer: torch.optim.Optimizer, decay: float) -> None:
    """Move every parameter ``decay`` times its learning rate of the way back to where training began.

    Loshchilov and Hutter's decoupled decay (2019, arXiv 1711.05101), towards the start instead of zero. Of a change of
    low rank, which starts at zero, one factor decays.
    """
    began = start.state_dict()
    rates = {id(parameter): group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    for name, parameter in projector.named_parameters():
        share = min(1.0, rates.get(id(parameter), 0.0) * decay)
        if name in began:
            parameter.lerp_(began[name], share)
        elif name.endswith(".b"):
            parameter.mul_(1 - share)
