"""Finds tasks and their files: the built-in ones by name, a user's own by the path of its YAML file."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from aim_sdk.errors import InputError, MissingDataError, unknown
from aim_sdk.evaluation.items import Dataset
from aim_sdk.evaluation.tasks.config import TaskConfig
from aim_sdk.files.atomic import expanded
from aim_sdk.files.yaml_files import read_yaml, yaml_in
from aim_sdk.support.plugins import Registry

Loader = Callable[[TaskConfig, Path], Dataset]

LOADERS: Final = Registry[Loader](
    "loader of tasks",
    "aim_sdk.task_loaders",
    {
        "easy-vqa": "aim_sdk.evaluation.tasks.easy_vqa:load",
        "easy-vqa-boxes": "aim_sdk.evaluation.tasks.easy_vqa_boxes:load",
        "easy-vqa-images": "aim_sdk.evaluation.tasks.easy_vqa:load_images",
        "emoji": "aim_sdk.evaluation.tasks.emoji:load",
        "emoji-binding": "aim_sdk.evaluation.tasks.emoji:load_binding",
        "hateful-memes": "aim_sdk.evaluation.tasks.hateful_memes:load",
        "jsonl": "aim_sdk.evaluation.tasks.jsonl:load",
        "karpathy": "aim_sdk.evaluation.tasks.karpathy:load",
        "textvqa": "aim_sdk.evaluation.tasks.textvqa:load",
        "vizwiz": "aim_sdk.evaluation.tasks.vizwiz:load",
        "vl-icl": "aim_sdk.evaluation.tasks.vl_icl:load",
        "vl-icl-classes": "aim_sdk.evaluation.tasks.vl_icl:load_classes",
        "vl-icl-operators": "aim_sdk.evaluation.tasks.vl_icl:load_operators",
        "vl-icl-pairs": "aim_sdk.evaluation.tasks.vl_icl:load_pairs",
        "vqa": "aim_sdk.evaluation.tasks.vqa:load",
    },
)
"""What reads a task's files, by the name in its YAML."""


@dataclass(frozen=True, slots=True)
class Status:
    """Whether a task can run here."""

    name: str
    metric: str
    missing: str
    """What is missing, where it belongs and where to get it; empty if nothing is missing."""

    @property
    def ready(self) -> bool:
        """Whether all of its files exist."""
        return not self.missing


def list_tasks() -> list[TaskConfig]:
    """The built-in tasks, by name."""
    return [_read(file) for file in _built_in().values()]


def get_task(name: str | Path) -> TaskConfig:
    """Return a built-in task by name, or read a YAML file, whose ``folder`` is below the file's own.

    Raises:
        InputError: no such task, or the file is not one.
    """
    if str(name).endswith((".yaml", ".yml")):
        config = _read(path := Path(name))
        if config.package is not None:
            return config
        return config.model_copy(update={"folder": str(path.absolute().parent / config.folder)})
    built_in = _built_in()
    if name not in built_in:
        raise InputError(
            f"{unknown('task', name, built_in)} Or name a YAML file. `aim-icl eval tasks` shows which can run here."
        )
    return _read(built_in[str(name)])


def folder_of(config: TaskConfig, data: Path) -> Path:
    """Where a task's files lie: below the data folder, or in the package that ships them, which is not imported.

    Raises:
        MissingDataError: the package is not installed.
    """
    if config.package is None:
        return expanded(data) / config.folder
    spec = find_spec(config.package)
    if spec is None or not spec.submodule_search_locations:
        raise MissingDataError(
            f"task {config.name!r}: its files come with the package {config.package!r}, which is not installed: "
            f"{config.install or config.source}"
        )
    return Path(next(iter(spec.submodule_search_locations)), config.folder)


def missing(config: TaskConfig, data: Path) -> list[Path]:
    """The files and folders of a task that are missing; `load` looks for single images.

    Raises:
        MissingDataError: the package that ships them is not installed.
    """
    folder = folder_of(config, data)
    return [path for name in config.files.values() if not (path := folder / name).exists()]


def load(config: TaskConfig, data: Path) -> Dataset:
    """Read a task's files.

    Raises:
        MissingDataError: files, or images that they name, are missing.
        InputError: they are damaged, or not what the loader reads.
    """
    check_files(config, data)
    return LOADERS[config.loader](config, folder_of(config, data))


def check_files(config: TaskConfig, data: Path) -> None:
    """See that a task's files and folders exist.

    Raises:
        MissingDataError: some are missing.
    """
    if absent := missing(config, data):
        expected = "".join(f"\n  {path}" for path in absent)
        raise MissingDataError(f"task {config.name!r}: its data was not found. Missing:{expected}\n{_where(config)}")


def _where(config: TaskConfig) -> str:
    if config.own:
        return "In a task of your own, `folder` and `files` are relative to its YAML file."
    source = f"Source: {config.install or config.source}\n"
    if config.package is not None:
        return f"{source}They come with the package {config.package!r}: install it again."
    return f"{source}`--data` names the folder of the tasks' folders."


def status(data: Path) -> list[Status]:
    """Whether each built-in task can run here, and what is missing if it cannot."""
    return [Status(config.name, config.metric, _lack(config, data)) for config in list_tasks()]


def _lack(config: TaskConfig, data: Path) -> str:
    try:
        absent = missing(config, data)
    except MissingDataError:
        return f"package {config.package}: {config.install or config.source}"
    if not absent:
        return ""
    folder = folder_of(config, data)
    names = ", ".join(os.path.relpath(path, folder) for path in absent)
    return f"{folder}{os.sep}: {names} (source: {config.install or config.source})"


def _built_in() -> dict[str, Traversable]:
    return yaml_in(files(str(__package__)))


def _read(file: Traversable | Path) -> TaskConfig:
    config = read_yaml(file, TaskConfig)
    if config.loader not in LOADERS:
        raise InputError(f"{file}: {unknown('loader', config.loader, LOADERS)}")
    return config
