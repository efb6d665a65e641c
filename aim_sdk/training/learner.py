"""What a run changes: the projector, the average of its weights, and the best weights so far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from aim_sdk.projectors.base import Projector
from aim_sdk.training import optimizer
from aim_sdk.training.average import copied, follow
from aim_sdk.training.config import TrainingConfig
from aim_sdk.training.low_rank import learn_low_rank
from aim_sdk.types import Vocabulary

Parts = Mapping[str, Mapping[str, Tensor]]
"""Tensors by name, of several things by name: what a checkpoint holds."""


class Learner:
    """A projector and its optimizer; its weights now are where the steps begin.

    Attributes:
        projector: what learns.
        start: what it is compared with: the projector before it was fitted and trained.
        average: the moving average of its weights: what is evaluated and handed out.
        best: the average at the best evaluation.
    """

    def __init__(self, projector: Projector, start: Projector, vocabulary: Vocabulary, config: TrainingConfig) -> None:
        self.start = start
        self.average, self.best = (copied(projector, vocabulary) for _ in range(2))
        if config.projector.rank is not None:
            torch.manual_seed(config.seed)
            learn_low_rank(projector, config.projector.rank)
        self.projector, self._settings, self._steps = projector, config.optimizer, config.steps
        self.base_rate = optimizer.base_rate(projector, config.optimizer)
        self._optimizer = optimizer.build(projector, config.optimizer)

    def set_rate(self, step: int) -> float:
        """Set the learning rates of a step (from 1); return that of parameters whose factor is 1."""
        return optimizer.set_rate(self._optimizer, self.base_rate, self._settings, step, self._steps)

    def step(self, number: int) -> None:
        """Take a step (from 1) with the gradients there are, and let the average follow."""
        self._optimizer.step()
        self._optimizer.zero_grad()
        if self._settings.weight_decay:
            optimizer.decay_towards(self.start, self.projector, self._optimizer, self._settings.weight_decay)
        follow(self.average, self.projector, self._settings.average, number)

    def keep_best(self) -> None:
        """The average is the best so far."""
        self.best.load_state_dict(self.average.state_dict())

    def parts(self) -> Parts:
        """All tensors that a checkpoint needs."""
        moments = {
            f"{index}.{name}": value
            for index, state in self._optimizer.state_dict()["state"].items()
            for name, value in state.items()
        }
        return {"optimizer": moments, **{name: module.state_dict() for name, module in self._modules.items()}}

    def take(self, parts: Parts) -> None:
        """Take the tensors of a checkpoint.

        Raises:
            RuntimeError, KeyError, ValueError: they are not those of this projector.
        """
        for name, module in self._modules.items():
            module.load_state_dict(dict(parts[name]))
        states: dict[int, dict[str, Any]] = {}
        for name, value in parts["optimizer"].items():
            index, _, key = name.partition(".")
            states.setdefault(int(index), {})[key] = value
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": states, "param_groups": groups})

    @property
    def _modules(self) -> dict[str, Projector]:
        return {"projector": self.projector, "start": self.start, "average": self.average, "best": self.best}
