"""What a step minimises: one small class for each objective, found by its name in the settings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from aim_sdk.backend.prepared import AnswerLogits
from aim_sdk.errors import InputError
from aim_sdk.support.plugins import Registry
from aim_sdk.training.targets import Target


class Objective(ABC):
    """A loss of one episode's answer. A subclass is stateless."""

    needs_teacher: ClassVar[bool] = False

    @abstractmethod
    def losses(self, student: AnswerLogits, target: Target | None) -> Float[Tensor, " tokens"]:
        """The loss at each of the answer's tokens, in nats; ``target`` is None if no objective needs a teacher."""


class Distill(Objective):
    """The divergence from the student's distribution to its teacher's, at each token of the answer.

    The teacher is the same frozen backbone, which sees the demonstrations' images (or their captions); the student sees
    fused tokens. The loss has no shortcut through the style of the texts: only what the images change can lower it. It
    is Hinton, Vinyals and Dean's distillation (2015, arXiv 1503.02531) at temperature 1.
    """

    needs_teacher = True

    def losses(self, student: AnswerLogits, target: Target | None) -> Float[Tensor, " tokens"]:
        assert target is not None
        return target.divergence(student.logits)


class LanguageModelling(Objective):
    """The usual loss: minus the log-probability of each token of the answer."""

    def losses(self, student: AnswerLogits, target: Target | None) -> Float[Tensor, " tokens"]:
        return -student.log_probs


class _Objectives(Registry["type[Objective]"]):
    def check(self, name: str, part: Any) -> str:
        return "" if isinstance(part, type) and issubclass(part, Objective) else "expected an Objective"


OBJECTIVES: Final = _Objectives(
    "objective",
    "aim_sdk.objectives",
    {
        "distill": "aim_sdk.training.objectives:Distill",
        "lm": "aim_sdk.training.objectives:LanguageModelling",
    },
)
"""Every objective by its name; installed distributions may bring more."""


class WeightedSum:
    """The objectives of a run, each with its weight.

    Raises:
        InputError: no objective has that name.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._parts = [(weight, OBJECTIVES[name]()) for name, weight in weights.items()]
        if not self._parts:
            raise InputError("objective: no weights; expected one objective at least. Next: objective=distill.")
        self.needs_teacher = any(part.needs_teacher for _, part in self._parts)

    def loss(self, student: AnswerLogits, target: Target | None) -> Float[Tensor, ""]:
        """One episode's loss: the mean over its answer's tokens, so that a long answer counts as much as a short one.

        What it computes on the way, several times the vocabulary for each token, is computed again in the backward: one
        episode at a time is in memory.
        """
        loss: Tensor = checkpoint(self._loss, student, target, use_reentrant=False)
        return loss

    def _loss(self, student: AnswerLogits, target: Target | None) -> Tensor:
        total = sum(weight * part.losses(student, target).mean() for weight, part in self._parts)
        assert isinstance(total, Tensor)
        return total
