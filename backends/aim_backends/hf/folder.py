"""A checkpoint's folder is untrusted: it is checked before transformers reads it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

from aim_sdk.errors import CorruptArtifactError, ModelNotFoundError

_LARGEST_JSON: Final = 2**27
"""Bytes of a JSON file: the largest tokenizers that are known have a quarter of it."""
_COUNTS: Final = re.compile("layers|depth|blocks|stages|experts")
_MOST_PARTS: Final = 4096
"""Of one kind: each costs time before its weights are missed."""


def check_folder(folder: Path) -> None:
    """Refuse what would hang or fill the memory, and a ``config.json`` that describes no model.

    Raises:
        ModelNotFoundError: there is none.
        CorruptArtifactError: it is cut or malformed, a JSON file is too large, or something is not a regular file.
    """
    path = folder / "config.json"
    if not path.is_file():
        held = ", ".join(sorted(item.name for item in folder.iterdir())[:8]) or "nothing"
        raise ModelNotFoundError(f"{folder} holds no config.json: not a checkpoint of transformers. It holds: {held}.")
    for item in folder.iterdir():
        if item.exists() and not item.is_file() and not item.is_dir():
            raise CorruptArtifactError(f"{item} is not a regular file; a checkpoint holds only files and folders.")
        if item.suffix == ".json" and item.is_file() and (size := item.stat().st_size) > _LARGEST_JSON:
            raise CorruptArtifactError(f"{item} has {size:,} bytes; expected at most {_LARGEST_JSON:,}.")
    config = read_config(path)
    if name := _too_many(config):
        raise CorruptArtifactError(f"{path}: {name}; expected at most {_MOST_PARTS:,}.")


def read_config(path: Path) -> dict[str, Any]:
    """Read a ``config.json`` that names a ``model_type``.

    Raises:
        CorruptArtifactError: it does not, or is cut or malformed.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise CorruptArtifactError(f"{path} is cut or malformed: {error}.") from error
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise CorruptArtifactError(f"{path} names no model_type; expected the configuration of a transformers model.")
    return config


def _too_many(config: dict[str, Any]) -> str | None:
    """The first count, in it or in a part of it, that is too large for any model."""
    parts = [config]
    while parts:
        for name, value in parts.pop().items():
            if isinstance(value, dict):
                parts.append(value)
            elif isinstance(value, int) and value > _MOST_PARTS and _COUNTS.search(name):
                return f"{name} is {value:,}"
    return None
