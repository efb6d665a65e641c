"""Weights as they are handed out: apart from those that the optimizer moves, and averaged over its steps."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from aim_sdk.projectors.base import Projector
from aim_sdk.types import Vocabulary


def weights(projector: Projector) -> dict[str, Tensor]:
    """A projector's tensors by name, with changes of low rank added to what they change."""
    return dict(_tensors(projector))


def _tensors(projector: Projector) -> Iterator[tuple[str, Tensor]]:
    for place, module in projector.named_modules():
        if isinstance(module, parametrize.ParametrizationList | nn.ModuleDict) or "parametrizations." in f"{place}.":
            continue
        prefix = f"{place}." if place else ""
        own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        if parametrize.is_parametrized(module):
            own += [(name, getattr(module, name)) for name in module.parametrizations]
        yield from ((f"{prefix}{name}", value.detach()) for name, value in own)


def copied(projector: Projector, vocabulary: Vocabulary) -> Projector:
    """Another projector with the same weights, which shares the backbone's tensors."""
    made = type(projector)(
        projector.hidden_size, projector.embedding_size, layers=projector.layers, **projector.options
    )
    made.load_state_dict(weights(projector))
    return made.attach(vocabulary).to(torch.float32).requires_grad_(False)


@torch.no_grad()
def follow(average: Projector, projector: Projector, decay: float, step: int) -> None:
    """Move an exponential moving average towards the weights after a step (from 1).

    The first steps count more, so that the start does not: the decay is at most ``(step - 1) / (step + 9)``.
    """
    kept = average.state_dict()
    share = 1 - min(decay, (step - 1) / (step + 9))
    for name, value in weights(projector).items():
        kept[name].lerp_(value.to(kept[name]), share) if value.is_floating_point() else kept[name].copy_(value)
