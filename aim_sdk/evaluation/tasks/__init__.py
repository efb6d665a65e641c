"""Tasks: what is asked. One YAML file per task, one module per file format."""

from aim_sdk.evaluation.tasks.config import TaskConfig
from aim_sdk.evaluation.tasks.page import readme
from aim_sdk.evaluation.tasks.registry import (
    LOADERS,
    Status,
    check_files,
    folder_of,
    get_task,
    list_tasks,
    load,
    missing,
    status,
)

__all__ = [
    "LOADERS",
    "Status",
    "TaskConfig",
    "check_files",
    "folder_of",
    "get_task",
    "list_tasks",
    "load",
    "missing",
    "readme",
    "status",
]
