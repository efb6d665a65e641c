"""A projector's two files, read as a stranger's: every size, name and value is checked before it is used."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import safetensors.torch
import torch
from pydantic import ValidationError
from pydantic_core import from_json
from safetensors import SafetensorError
from torch import Tensor

from aim_sdk.config import ProjectorConfig
from aim_sdk.errors import ArtifactNotFoundError, CorruptArtifactError

if TYPE_CHECKING:
    from aim_sdk.projectors.base import Projector

CONFIG_FILE = "projector_config.json"
WEIGHTS_FILE = "projector.safetensors"
_LARGEST_CONFIG: Final = 2**22
"""Bytes; what training says of itself is in it."""
_LARGEST_HEADER: Final = 2**20
"""Bytes of the weights file's list of tensors: a projector has a handful."""
_WIDEST: Final = 8
"""Bytes of a float64."""
_FLOATS: Final = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def config_hash(fields: Mapping[str, Any]) -> str:
    """SHA-256 of a configuration, whatever its layout on disk."""
    kept = {name: value for name, value in fields.items() if name != "config_sha256"}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def read_config(path: Path) -> ProjectorConfig:
    """Read and check ``projector_config.json``.

    Raises:
        CorruptArtifactError: cut, altered, malformed, too large, or of a newer version.
    """
    data = _bytes(path, _LARGEST_CONFIG)
    try:
        raw = from_json(data, allow_inf_nan=False)
        json.dumps(raw, allow_nan=False)  # 1e999 is infinite and JSON
    except ValueError as error:
        raise CorruptArtifactError(f"{path}: cut or not JSON ({error}).") from error
    version = raw.get("format_version") if isinstance(raw, dict) else None
    if isinstance(version, int) and version > 1:
        raise CorruptArtifactError(
            f"{path}: format_version {version}, but this aim-icl reads 1. Next: install a newer aim-icl."
        )
    try:
        config = ProjectorConfig.model_validate_json(data, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the file"
        raise CorruptArtifactError(f"{path}: {field}: {first['msg']}.") from error
    if config.config_sha256 not in (None, config_hash(raw)):
        raise CorruptArtifactError(
            f"{path}: altered: its SHA-256 is not the one that it was saved with. Copy or download the folder again."
        )
    return config


def read_weights(path: Path, config: ProjectorConfig, build: Callable[[], Projector]) -> dict[str, Tensor]:
    """Read the weights of the projector that ``build`` makes; nothing of its size is made before they are checked.

    Raises:
        CorruptArtifactError: cut or altered, or not this projector's; names the tensor.
    """
    expected = _expected(build)
    data = _bytes(path, sum(_WIDEST * tensor.numel() for tensor in expected.values()) + _LARGEST_HEADER)
    if hashlib.sha256(data).hexdigest() != config.weights_sha256:
        raise CorruptArtifactError(
            f"{path}: cut or altered: its SHA-256 is not the one in {CONFIG_FILE}. Copy or download the folder again."
        )
    if int.from_bytes(data[:8], "little") > _LARGEST_HEADER:
        raise CorruptArtifactError(f"{path}: its header has more than {_LARGEST_HEADER:,} bytes.")
    try:
        found = safetensors.torch.load(data)
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise CorruptArtifactError(f"{path}: no weights file ({error}).") from error
    _check(f"{path}: does not hold a {config.kind!r} projector", found, expected)
    return found


def _bytes(path: Path, most: int) -> bytes:
    try:
        if (size := path.stat().st_size) > most:
            raise CorruptArtifactError(f"{path} has {size:,} bytes; expected at most {most:,}.")
        return path.read_bytes()
    except OSError as error:
        raise ArtifactNotFoundError(f"{path} cannot be read ({error.strerror}).") from error


def _expected(build: Callable[[], Projector]) -> dict[str, Tensor]:
    """The names, shapes and dtypes of the projector's tensors, on a device without memory where the kind can."""
    try:
        with torch.device("meta"):
            return dict(build().state_dict())
    except (RuntimeError, NotImplementedError):  # a constructor that computes with numbers
        return dict(build().state_dict())


def _check(refusal: str, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    for name in sorted(found.keys() | expected.keys()):
        if name not in found or name not in expected:
            raise CorruptArtifactError(f"{refusal}: {name!r} is {'missing' if name in expected else 'not one of its'}.")
        value, wanted = found[name], expected[name]
        if value.shape != wanted.shape:
            raise CorruptArtifactError(
                f"{refusal}: {name!r} has the shape {tuple(value.shape)}, expected {tuple(wanted.shape)}."
            )
        allowed = _FLOATS if wanted.is_floating_point() else (wanted.dtype,)
        if value.dtype not in allowed:
            raise CorruptArtifactError(f"{refusal}: {name!r} holds {value.dtype}, expected {_names(allowed)}.")
        if not value.to(wanted.dtype).isfinite().all():
            raise CorruptArtifactError(f"{refusal}: {name!r} holds NaN or infinity.")


def _names(dtypes: Iterable[torch.dtype]) -> str:
    return " or ".join(map(str, dtypes))
