"""A projector as a folder: a `ProjectorConfig` and a dict of tensors, written as a whole, and read as untrusted input.

``projector.safetensors`` holds the tensors, ``projector_config.json`` the configuration. Every size, name and value is
checked before it is used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import safetensors.torch
import torch
from pydantic import ValidationError
from pydantic_core import PydanticSerializationError, from_json
from safetensors import SafetensorError
from torch import Tensor

from aim_sdk.config import ProjectorConfig
from aim_sdk.errors import ArtifactError, ArtifactNotFoundError, CorruptArtifactError, problem
from aim_sdk.files.atomic import write_atomic

CONFIG_FILE: Final = "projector_config.json"
WEIGHTS_FILE: Final = "projector.safetensors"
_LARGEST_CONFIG: Final = 2**22
"""Bytes; what training says of itself is in it."""
_LARGEST_HEADER: Final = 2**20
"""Bytes of the weights file's list of tensors: a projector has a handful."""
_WIDEST: Final = 8
"""Bytes of a float64."""
_FLOATS: Final = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def weights_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of ``projector.safetensors`` with these tensors."""
    return hashlib.sha256(_packed(tensors)).hexdigest()


def config_hash(fields: Mapping[str, Any]) -> str:
    """SHA-256 of a configuration, independent of its layout on disk."""
    kept = {name: value for name, value in fields.items() if name != "config_sha256"}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def write(folder: Path, config: ProjectorConfig, tensors: Mapping[str, Tensor]) -> None:
    """Write both files, each completely or not at all.

    Args:
        folder: where to.
        config: what the projector is; its `config_sha256` is made here.
        tensors: the projector's, by name, on any device; `weights_hash` of them is in the configuration.

    Raises:
        ArtifactError: a tensor holds NaN or infinity, or the summary of the training cannot be written as JSON.
        ArtifactWriteError: the disk is full, or the folder cannot be written to.
    """
    if name := next((name for name, value in tensors.items() if not value.isfinite().all()), None):
        raise ArtifactError(f"this projector's weights {name!r} hold NaN or infinity; it is not saved.")
    try:
        fields = json.loads(config.model_dump_json())
    except PydanticSerializationError as error:
        raise ArtifactError(f"this projector's summary cannot be written as JSON: {error}") from error
    fields["config_sha256"] = config_hash(fields)
    write_atomic(folder / WEIGHTS_FILE, _packed(tensors))
    write_atomic(folder / CONFIG_FILE, (json.dumps(fields, indent=2) + "\n").encode())


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
        raise CorruptArtifactError(f"{path}: {problem(error)}.") from error
    if config.config_sha256 != config_hash(raw):
        raise CorruptArtifactError(
            f"{path}: altered: its SHA-256 is not the one that it was saved with. Copy or download the folder again."
        )
    return config


def read_weights(path: Path, config: ProjectorConfig, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Read the weights of the projector that a configuration describes.

    Args:
        path: of ``projector.safetensors``.
        config: of the same folder.
        expected: the projector's tensors, of which names, shapes and dtypes count; they may be on the device ``meta``,
            which takes no memory.

    Raises:
        CorruptArtifactError: cut or altered, or not this projector's; names the tensor.
    """
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


def _packed(tensors: Mapping[str, Tensor]) -> bytes:
    return safetensors.torch.save({name: value.contiguous().cpu() for name, value in tensors.items()})


def _bytes(path: Path, most: int) -> bytes:
    try:
        if (size := path.stat().st_size) > most:
            raise CorruptArtifactError(f"{path} has {size:,} bytes; expected at most {most:,}.")
        return path.read_bytes()
    except OSError as error:
        raise ArtifactNotFoundError(f"{path} cannot be read ({error.strerror}).") from error


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
