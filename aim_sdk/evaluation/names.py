"""What a run names: found before anything that is slow to import, and before a model is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aim_sdk.backend.registry import BACKENDS
from aim_sdk.errors import InputError
from aim_sdk.evaluation import tasks
from aim_sdk.evaluation.protocol import Protocol, get_protocol
from aim_sdk.evaluation.tasks.config import TaskConfig
from aim_sdk.selection.registry import SELECTORS

if TYPE_CHECKING:
    from aim_sdk.evaluation.settings import EvalSettings


def check_names(settings: EvalSettings) -> None:
    """Look for the backend, the selector, the protocol, the tasks and their files; torch is not imported.

    Raises:
        InputError: one does not exist, or tasks have the same name.
        MissingDataError: a task's files are missing.
    """
    for config in tasks_of(settings, get_protocol(settings.protocol)):
        tasks.check_files(config, settings.data)
    BACKENDS.require(settings.backend)
    SELECTORS.require(settings.selector)


def tasks_of(settings: EvalSettings, protocol: Protocol) -> list[TaskConfig]:
    """The tasks, by their names or files.

    Raises:
        InputError: there is none, or two have the same name, under which answers and scores are kept.
    """
    found: dict[str, tuple[str, TaskConfig]] = {}
    for name in settings.tasks or protocol.tasks:
        config = tasks.get_task(name)
        if config.name in found:
            raise InputError(
                f"two tasks are called {config.name!r}: {_origin(found[config.name][0])} and {_origin(name)}. Answers "
                "and scores are kept by that name.\nNext: change `name:` in one of the files, or name only one of them."
            )
        found[config.name] = name, config
    if not found:
        raise InputError(
            f"--tasks is missing (tasks=...), and protocol {protocol.name!r} has no tasks of its own. "
            "`aim-icl eval tasks` shows which can run here."
        )
    return [config for _, config in found.values()]


def _origin(name: str) -> str:
    return name if name.endswith((".yaml", ".yml")) else f"the built-in {name}"
