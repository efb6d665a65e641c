"""Which folder or hub id is loaded, and what to do if it is not there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from aim_sdk.errors import InputError, ModelNotFoundError, did_you_mean
from aim_sdk.files.atomic import expanded

_HUB_ID: Final = re.compile(r"[\w.-]+(/[\w.-]+)?")


def source_of(backend: str, default: str | None, model: str | None) -> str:
    """Return the local folder or hub id to load.

    Raises:
        InputError: no model is named and the backend has no default.
        ModelNotFoundError: a local path without a folder.
    """
    if model is None:
        if default is None:
            raise InputError(
                f"backend {backend!r} has no default model; pass model=<hub id or local folder>, "
                f'for example from_pretrained("{backend}", model="OpenGVLab/InternVL3-1B-hf").'
            )
        return default
    path = expanded(model)
    if path.is_dir():
        return str(path)
    if path.exists():
        raise ModelNotFoundError(f"{model} is a file; expected the folder of a checkpoint (config.json and weights).")
    if path.is_absolute() or model.startswith((".", "~")) or not _HUB_ID.fullmatch(model):
        raise ModelNotFoundError(f"{model}: no such folder.{_near(path)}")
    return model


def unreachable(source: str, error: Exception) -> str:
    """What to do about a source that could not be read."""
    return (
        f"{source!r} is not a local folder, and the hub could not provide it ({first(error)})."
        f"{_near(Path(source))}\n"
        "Next: check the name and the network; without a network pass a local folder: model='/path/to/checkpoint'."
    )


def _near(path: Path) -> str:
    """Name the existing folders that are nearest to a missing one."""
    parent = path.parent
    if not parent.is_dir():
        return f" The folder {parent} does not exist either." if path.is_absolute() else ""
    return did_you_mean(path.name, sorted(item.name for item in parent.iterdir() if item.is_dir()))


def first(error: Exception) -> str:
    """What an error says in short."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
