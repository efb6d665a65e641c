"""The README of this folder, written from the tasks' YAML files."""

from __future__ import annotations

from aim_sdk.evaluation.tasks.config import TaskConfig
from aim_sdk.evaluation.tasks.registry import list_tasks

_HEAD = """# Tasks

One YAML file per task; the fields are those of `TaskConfig` in `config.py`. This package contains no data.
`aim_sdk.evaluation.tasks.readme()` writes this page from the YAML files.

| task | metric | source | licence | files | splits |
|---|---|---|---|---|---|
"""


def readme() -> str:
    """The whole page."""
    return _HEAD + "".join(_row(config) for config in list_tasks())


def _row(config: TaskConfig) -> str:
    cells = [f"`{config.name}`: {config.title}", f"`{config.metric}`", config.source, config.licence]
    return f"| {' | '.join([*cells, _files(config), config.splits])} |\n"


def _files(config: TaskConfig) -> str:
    root = f"package `{config.package}`, `{config.folder}/`" if config.package else f"`{config.folder}/`"
    return f"{root}: " + ", ".join(f"`{name}`" for name in dict.fromkeys(config.files.values()))
