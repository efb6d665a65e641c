"""A run's state in a folder: whole or not there, no pickle, and enough to go on as if nothing had happened.

``checkpoints/step-00000200/`` holds ``state.json`` (step, places in the corpus, counts), ``projector.safetensors`` and
``optimizer.safetensors`` (AdamW's two moments and step of each parameter). The folder gets its name when all is written
and synced; what an interrupted save leaves behind begins with a dot, and is removed by the next one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from torch import Tensor

from aim_sdk.errors import CorruptArtifactError
from aim_sdk.files import sync_folder, write_atomic
from aim_sdk.interfaces import Projector
from aim_sdk.training.corpora import Cursor

_FOLDER = "checkpoints"
_PREFIX = "step-"
_PARTIAL = ".partial-"


class State(BaseModel):
    """What a checkpoint says beside its tensors."""

    model_config = ConfigDict(extra="forbid")

    step: int = 0
    cursors: dict[int, tuple[int, int]] = {}
    dropped: dict[str, int] = {}
    episodes: int = 0
    tokens: int = 0

    def cursor_of(self) -> dict[int, Cursor]:
        """Each stream's place in the corpus."""
        return {stream: Cursor(*place) for stream, place in self.cursors.items()}


def save(output: Path, state: State, projector: Projector, optimizer: torch.optim.Optimizer, *, keep: int) -> Path:
    """Write a checkpoint, then remove all but the last ``keep``."""
    root = output / _FOLDER
    root.mkdir(parents=True, exist_ok=True)
    for left in root.glob(f"{_PARTIAL}*"):
        shutil.rmtree(left)
    folder, partial = root / f"{_PREFIX}{state.step:08}", root / f"{_PARTIAL}{state.step:08}"
    partial.mkdir()
    write_atomic(partial / "projector.safetensors", safetensors.torch.save(_whole(projector.state_dict())))
    write_atomic(partial / "optimizer.safetensors", safetensors.torch.save(_whole(_moments(optimizer))))
    write_atomic(partial / "state.json", (state.model_dump_json(indent=2) + "\n").encode())
    if folder.exists():  # saved once more at the same step
        shutil.rmtree(folder)
    os.replace(partial, folder)
    sync_folder(root)
    for old in _folders(output)[:-keep]:
        shutil.rmtree(old)
    return folder


def load(output: Path, projector: Projector, optimizer: torch.optim.Optimizer) -> State:
    """Take over the last checkpoint; the first state, where there is none.

    Raises:
        CorruptArtifactError: it is damaged.
    """
    folders = _folders(output)
    if not folders:
        return State()
    folder = folders[-1]
    try:
        state = State.model_validate_json((folder / "state.json").read_bytes())
        projector.load_state_dict(safetensors.torch.load((folder / "projector.safetensors").read_bytes()))
        moments = safetensors.torch.load((folder / "optimizer.safetensors").read_bytes())
        _take_moments(optimizer, moments)
    except (OSError, ValidationError, SafetensorError, RuntimeError, KeyError, ValueError) as error:
        before = f" The one before it is {folders[-2].name}." if len(folders) > 1 else ""
        cause = str(error).splitlines()[0]
        raise CorruptArtifactError(
            f"{folder}: the checkpoint cannot be taken over ({cause}).{before}\nNext: delete {folder}."
        ) from error
    return state


def _folders(output: Path) -> list[Path]:
    return sorted((output / _FOLDER).glob(f"{_PREFIX}*"))


def _moments(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    states = optimizer.state_dict()["state"]
    return {f"{index}.{name}": value for index, state in states.items() for name, value in state.items()}


def _take_moments(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    states: dict[int, dict[str, Any]] = {}
    for name, value in tensors.items():
        index, _, key = name.partition(".")
        states.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})


def _whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
