"""What a training step computes at least, and what that costs: its inputs are ready, and nothing is round it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from aim_sdk.projectors.base import Projector
from aim_sdk.projectors.batch import ReadingBatch
from aim_sdk.training import TrainingConfig, optimizer
from aim_sdk.training.targets import Target
from aim_sdk.types import Demonstration, ImageInput, Reading

Places = tuple[Tensor, Tensor]
"""Rows and columns."""


@dataclass(frozen=True)
class Prompts:
    """A forward that predicts answers."""

    inputs: Any
    places: Places
    """What the LM head sees: of all episodes, one after the other."""


@dataclass(frozen=True)
class Step:
    """What one step computes, with all its inputs ready."""

    reads: list[tuple[Any, list[list[int]]]]
    """Each forward of the reader: its inputs, and its readings' places by row."""
    order: list[int]
    """Of each reading in the projector's batch, its number among those read."""
    batch: ReadingBatch
    rows: Places
    """The fused tokens in what the projector gives, of all episodes one after the other."""
    slots: Places
    """The fused tokens' places in the student's prompts."""
    student: Prompts
    teacher: Prompts | None
    """None: nobody distils."""
    wanted: Tensor
    """The answers' tokens, of all episodes one after the other."""
    target: Target | None
    """What the teacher says at these, as a later epoch finds it on disk."""
    weights: Tensor
    """Of each answer's token in the loss: every episode counts once."""
    read_tokens: int
    """Text tokens that are read, as the trainer counts them: without the visual ones."""
    answer_tokens: int
    """Fused tokens and the answers' tokens."""


class Bare(ABC):
    """A backbone without the SDK round it: it notes what its model is given, and runs its model on that again."""

    @abstractmethod
    @contextmanager
    def noting(self) -> Iterator[list[Any]]:
        """Inside the block, every forward's inputs are noted."""

    @abstractmethod
    def reads(
        self, given: Any, demonstrations: Sequence[Demonstration], readings: Sequence[Reading]
    ) -> tuple[Any, list[list[int]]]:
        """A reading forward's inputs, and the readings' places by row."""

    @abstractmethod
    def prompts(self, given: Any, images: Sequence[Sequence[ImageInput]], answers: Sequence[int]) -> Prompts:
        """A forward whose rows hold these images and end in answers of so many tokens."""

    @abstractmethod
    def slots(self, given: Any, fused: Sequence[int]) -> Places:
        """Where so many fused tokens stand in each row."""

    @abstractmethod
    def hidden(self, inputs: Any) -> Tensor:
        """Run a reading forward."""

    @abstractmethod
    def logits(self, prompts: Prompts, fused: tuple[Places, Tensor] | None = None) -> Tensor:
        """Run prompts, with fused tokens at their places."""

    def begin(self) -> None:  # noqa: B027
        """A new step begins: forget what was computed of its images."""


def loss_of(bare: Bare, projector: Projector, step: Step, objective: str, *, ready: bool, top: int) -> Tensor:
    """One step's loss by as little as can be; ``ready``: its readings and its targets are known."""
    bare.begin()
    batch, target = step.batch, step.target
    if not ready:
        with torch.no_grad():
            batch = replace(batch, hidden=_read(bare, step))
            if objective == "distill":
                assert step.teacher is not None
                target = Target.of(step.wanted, bare.logits(step.teacher), top)
    logits = bare.logits(step.student, (step.slots, projector(batch)[step.rows]))
    if objective == "distill":
        assert target is not None
        losses = target.divergence(logits)
    else:
        losses = F.cross_entropy(logits.float(), step.wanted, reduction="none")
    return (losses * step.weights).sum()


def floor(
    bare: Bare, projector: Projector, steps: Sequence[Step], objective: str, config: TrainingConfig, *, ready: bool
) -> None:
    """All the steps, with nothing round them."""
    settings, top = config.optimizer, config.objective.top_tokens
    learner = optimizer.build(projector, settings)
    parts = [(group, group["params"], *(_copied(group["params"]) for _ in range(2))) for group in learner.param_groups]
    for step in steps:
        loss_of(bare, projector, step, objective, ready=ready, top=top).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(projector.parameters(), settings.clip)
        learner.step()
        learner.zero_grad()
        with torch.no_grad():
            for group, weights, start, average in parts:
                torch._foreach_lerp_(weights, start, group["lr"] * settings.weight_decay)
                torch._foreach_lerp_(average, weights, 1 - settings.average)


def _read(bare: Bare, step: Step) -> Tensor:
    found = []
    for inputs, places in step.reads:
        hidden = bare.hidden(inputs)
        found += [hidden[row, torch.tensor(where).to(hidden.device)] for row, where in enumerate(places)]
    return pad_sequence([found[number] for number in step.order], batch_first=True)


def _copied(weights: Sequence[Tensor]) -> list[Tensor]:
    return [weight.detach().clone() for weight in weights]
