"""Hands each task that lmms-eval prepares to the model that will answer it, and keeps demonstrations out of its texts.

lmms-eval gives a model only a task's data, and writes a task's demonstrations into its questions as text, without their
images. The one call that it makes for every task, once all settings are known, is `Task.set_fewshot_seed`.
"""

from __future__ import annotations

import random
from typing import Any, Final, Protocol
from weakref import WeakSet

from lmms_eval.api.samplers import ContextSampler
from lmms_eval.api.task import Task


class TakesTasks(Protocol):
    """A model that wants to see its tasks."""

    task_dict: dict[str, Any]
    """The data of each, by name: lmms-eval sets it."""

    def take(self, task: Task, seed: int | None) -> None:
        """Called with each of its tasks, before any request is made."""


class ImageSampler(ContextSampler):  # type: ignore[misc]
    """Leaves a task's questions without demonstrations: the model shows them itself, with their images."""

    def __init__(self, task: Task) -> None:
        super().__init__([], task, rnd=random.Random(0))
        self.asked = False
        """Whether lmms-eval made the questions in this run, and did not read them from its cache of requests."""

    def get_context(self, doc: Any, num_fewshot: int) -> str:
        """Nothing, in the place of the demonstrations' texts."""
        self.asked = True
        return ""


def hand_over_tasks(model: TakesTasks) -> None:
    """From now on, call ``model.take`` with each task that lmms-eval prepares for it."""
    _MODELS.add(model)
    Task.set_fewshot_seed = _set_fewshot_seed


_MODELS: Final[WeakSet[TakesTasks]] = WeakSet()
_original = Task.set_fewshot_seed


def _set_fewshot_seed(task: Task, seed: int | None = None) -> None:
    _original(task, seed)
    for model in list(_MODELS):
        if any(data is task.dataset for data in model.task_dict.values()):
            model.take(task, seed)
