"""Rates: each parameter's own, a warm-up, a cosine."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from aim_sdk.projectors import LinearNormProjector
from aim_sdk.training import optimizer
from aim_sdk.training.config import OptimizerSettings


class Rated(LinearNormProjector):
    """Its norm learns ten times as fast."""

    def rate(self, name: str) -> float:
        return 10.0 if name.startswith("norm") else 1.0


def group_of(adam: torch.optim.Optimizer, parameter: nn.Parameter) -> dict[str, float]:
    (found,) = (group for group in adam.param_groups if any(p is parameter for p in group["params"]))
    return found


def test_every_parameter_has_its_rate() -> None:
    projector = Rated(6, 4)
    settings = OptimizerSettings(learning_rate=0.1, weight_decay=0.3, betas=(0.8, 0.9), warm_up=0, final_rate=1)
    adam = optimizer.build(projector, settings)
    optimizer.set_rate(adam, 0.1, settings, 1, 10)
    matrix, bias, gain = (
        group_of(adam, p) for p in (projector.linear.weight, projector.linear.bias, projector.norm.weight)
    )
    assert [matrix["lr"], bias["lr"], gain["lr"]] == pytest.approx([0.1, 0.1, 1.0])
    assert all(group["weight_decay"] == 0 for group in adam.param_groups), "it would be towards zero"
    assert all(group["betas"] == (0.8, 0.9) for group in adam.param_groups)
    assert sum(len(group["params"]) for group in adam.param_groups) == len(list(projector.parameters()))


@given(
    steps=st.integers(1, 400),
    warm_up=st.floats(0, 1),
    final=st.floats(0, 1),
    rate=st.floats(1e-6, 1.0),
)
def test_the_rate_rises_then_falls_to_the_final_one(steps: int, warm_up: float, final: float, rate: float) -> None:
    settings = OptimizerSettings(learning_rate=rate, warm_up=warm_up, final_rate=final)
    adam = optimizer.build(Rated(2, 2), settings)
    rates = [optimizer.set_rate(adam, rate, settings, step, steps) for step in range(1, steps + 1)]
    warm = max(1, round(warm_up * steps))
    assert rates[:warm] == pytest.approx([rate * step / warm for step in range(1, warm + 1)])
    assert all(later <= earlier * (1 + 1e-9) for earlier, later in zip(rates[warm - 1 :], rates[warm:], strict=False))
    assert 0 <= min(rates) <= max(rates) <= rate * (1 + 1e-9)
    if warm < steps:
        assert rates[-1] == pytest.approx(rate * final)
    assert {group["lr"] for group in adam.param_groups} == {rates[-1], rates[-1] * 10}
