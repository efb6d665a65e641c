"""From a folder to a projector: its kind is looked up, built without weights, and given those of the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from aim_sdk.errors import ArtifactError, CorruptArtifactError, unknown
from aim_sdk.projectors.kinds import KINDS, check_options
from aim_sdk.projectors.saved import CONFIG_FILE, WEIGHTS_FILE, read_config, read_weights

if TYPE_CHECKING:
    from aim_sdk.projectors.base import Projector


def load(folder: Path) -> Projector:
    """Load a projector of any kind, in ``eval()`` and on the CPU; it is attached to no backbone yet.

    Raises:
        CorruptArtifactError: a file is cut, altered or malformed, or of a newer version; no projector is of that kind;
            or the weights are not those of the projector that the configuration describes.
    """
    path = folder / CONFIG_FILE
    config = read_config(path)
    if config.kind not in KINDS:
        raise CorruptArtifactError(
            f"{path}: {unknown('projector kind', config.kind, sorted(KINDS))} A kind of your own must be imported "
            "before it is loaded, or registered as an entry point."
        )
    kind = KINDS[config.kind]

    def build() -> Projector:
        return kind(config.hidden_size, config.embedding_size, layers=config.layers, **config.options)

    try:
        check_options(kind, config.options)
        weights = read_weights(folder / WEIGHTS_FILE, config, _tensors(build))
        projector = build()
    except (ValueError, TypeError, RuntimeError, MemoryError) as error:  # of a kind's constructor
        if isinstance(error, ArtifactError):
            raise
        raise CorruptArtifactError(f"{path}: options {config.options}: {error}") from error
    if missing := sorted(projector.options.keys() - config.options.keys()):
        raise CorruptArtifactError(
            f"{path}: options {config.options}: {', '.join(missing)} missing. Expected every option of a "
            f"{config.kind!r} projector, as `save_pretrained` writes them. Next: save the projector again."
        )
    projector.load_state_dict(weights)
    projector.fingerprint, projector.summary = config.fingerprint, config.training
    return projector.eval()


def _tensors(build: Callable[[], Projector]) -> dict[str, Tensor]:
    """The projector's tensors, on a device without memory if the kind supports it."""
    try:
        with torch.device("meta"):
            return dict(build().state_dict())
    except (RuntimeError, NotImplementedError):  # a constructor that computes with numbers
        return dict(build().state_dict())
