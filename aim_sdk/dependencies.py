"""Packages of extras, imported when they are needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from aim_sdk.errors import MissingDependencyError


def imported(module: str, *, extra: str = "train") -> Any:
    """Import a module of a package that may be missing.

    Raises:
        MissingDependencyError: it is.
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise MissingDependencyError(
            f'{package} is needed here and is not installed.\nNext: pip install "aim-icl[{extra}]"'
        ) from error
