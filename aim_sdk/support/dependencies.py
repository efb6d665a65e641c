"""Packages of extras, imported when they are needed."""

from __future__ import annotations

import shlex
import sys
from importlib import import_module
from typing import Any

from aim_sdk.errors import MissingDependencyError


def install_command(extra: str) -> str:
    """The command that adds an extra's packages where this process runs.

    It looks nowhere for aim-icl, which is on no index: pip finds that it is installed, from a clone or a wheel.
    """
    return f'{shlex.quote(sys.executable)} -m pip install "aim-icl[{extra}]"'


def imported(module: str, *, extra: str = "train") -> Any:
    """Import a module of a package that may be missing.

    Raises:
        MissingDependencyError: it is missing.
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise MissingDependencyError(
            f"{package} is needed here and is not installed.\nNext: {install_command(extra)}"
        ) from error
