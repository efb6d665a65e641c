"""A run's state in a folder: complete or absent, without pickle, and enough to resume as if nothing had happened.

``checkpoints/step-00000200/`` holds ``state.json`` (step, places in the corpus, counts, the best evaluation, and the
SHA-256 of the others) and the tensors of five things: ``projector.safetensors`` as it learns, ``optimizer.safetensors``
(Adam's two moments and step of each parameter), and the weights of ``start``, ``average`` and ``best``. The folder gets
its name when all is written and synced; what an interrupted save leaves begins with a dot, and is removed by the next
one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from torch import Tensor

from aim_sdk.errors import CorruptArtifactError
from aim_sdk.files.atomic import sync_folder, write_atomic, writing
from aim_sdk.training.corpora import Cursor
from aim_sdk.training.learner import Learner, Parts
from aim_sdk.training.origin import Origin
from aim_sdk.training.verdict import Best

KEPT = "The last checkpoint is untouched.\nNext: make room; the same command resumes from it."
_FOLDER = "checkpoints"
_PREFIX = "step-"
_PARTIAL = ".partial-"


class TrainingState(BaseModel):
    """What a checkpoint says besides its tensors."""

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="constants")

    origin: Origin | None = None
    fitted: int = 0
    """Readings that the projector was fitted to before the first step."""
    step: int = 0
    cursors: dict[int, tuple[int, int]] = {}
    dropped: dict[str, int] = {}
    episodes: int = 0
    tokens: int = 0
    best: Best | None = None
    """None: nothing is evaluated."""
    sha256: dict[str, str] = {}

    def cursor_of(self) -> dict[int, Cursor]:
        """Each stream's place in the corpus."""
        return {stream: Cursor(*place) for stream, place in self.cursors.items()}


def save(output: Path, state: TrainingState, parts: Parts, *, keep: int) -> Path:
    """Write a checkpoint, then remove all but the last ``keep``; an existing one stays.

    Raises:
        ArtifactWriteError: the disk is full, for example; earlier checkpoints are untouched.
    """
    root = output / _FOLDER
    folder, partial = root / f"{_PREFIX}{state.step:08}", root / f"{_PARTIAL}{state.step:08}"
    with writing(folder, KEPT):
        root.mkdir(parents=True, exist_ok=True)
        for left in root.glob(f"{_PARTIAL}*"):
            shutil.rmtree(left)
        if folder.exists():
            return folder
        try:
            _write(partial, state, parts)
            os.replace(partial, folder)
            sync_folder(root)
        except OSError:  # reclaim the space that an unfinished one takes
            shutil.rmtree(partial, ignore_errors=True)
            raise
        for old in _folders(output)[:-keep]:
            shutil.rmtree(old)
    return folder


def _write(folder: Path, state: TrainingState, parts: Parts) -> None:
    folder.mkdir()
    hashes = {}
    for name, tensors in parts.items():
        data = safetensors.torch.save(_whole(tensors))
        hashes[name] = hashlib.sha256(data).hexdigest()
        write_atomic(folder / f"{name}.safetensors", data)
    written = state.model_copy(update={"sha256": hashes})
    write_atomic(folder / "state.json", (written.model_dump_json(indent=2) + "\n").encode())


def load(output: Path, learner: Learner) -> TrainingState:
    """Load the latest checkpoint into ``learner``, or return the initial state.

    Raises:
        CorruptArtifactError: it is damaged.
    """
    folders = _folders(output)
    if not folders:
        return TrainingState()
    folder = folders[-1]
    try:
        state = TrainingState.model_validate_json((folder / "state.json").read_bytes())
        learner.take({name: _tensors(folder, name, state) for name in learner.parts()})
    except (OSError, ValidationError, SafetensorError, RuntimeError, KeyError, ValueError) as error:
        before = f" The one before it is {folders[-2].name}." if len(folders) > 1 else ""
        cause = str(error).splitlines()[0]
        raise CorruptArtifactError(
            f"{folder}: the checkpoint cannot be loaded ({cause}).{before}\nNext: delete {folder}."
        ) from error
    return state.model_copy(update={"sha256": {}})


def steps_taken(output: Path) -> int:
    """The step of the last checkpoint; 0 if there is none."""
    folders = _folders(output)
    return int(folders[-1].name.removeprefix(_PREFIX)) if folders else 0


def _tensors(folder: Path, name: str, state: TrainingState) -> dict[str, Tensor]:
    data = (folder / f"{name}.safetensors").read_bytes()
    if hashlib.sha256(data).hexdigest() != state.sha256[name]:
        raise ValueError(f"{name}.safetensors is not as it was written")
    return safetensors.torch.load(data)


def _folders(output: Path) -> list[Path]:
    return sorted((output / _FOLDER).glob(f"{_PREFIX}*"))


def _whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
