"""What a GGUF file holds besides what llama.cpp loads: its metadata, the input embeddings and the LM head."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from aim_sdk.errors import CorruptArtifactError, ModelNotFoundError, UnsupportedModelError
from aim_sdk.support.dependencies import imported

_SAMPLES: Final = 256


class GgufFile:
    """A GGUF file, memory-mapped.

    Raises:
        ModelNotFoundError: there is no such file.
        CorruptArtifactError: it is no GGUF file, or is cut.
    """

    def __init__(self, path: Path) -> None:
        gguf = imported("gguf", extra="llamacpp")
        if not path.is_file():
            raise ModelNotFoundError(
                f"{path}: there is no such file. Expected a model in the GGUF format.\n"
                "Next: model=PATH.gguf; llama.cpp's convert_hf_to_gguf.py writes one of a checkpoint."
            )
        try:
            self._reader = gguf.GGUFReader(path)
        except (ValueError, KeyError, IndexError, OSError) as error:
            raise CorruptArtifactError(f"{path}: not a whole GGUF file ({error}).") from error
        self.path, self._dequantize = path, gguf.quants.dequantize
        self._tensors = {tensor.name: tensor for tensor in self._reader.tensors}

    def value(self, key: str) -> Any:
        """A value of the metadata; None if it is not there."""
        field = self._reader.get_field(key)
        return None if field is None else field.contents()

    @property
    def embeddings(self) -> Tensor:
        """The input embeddings ``(vocabulary, embed)`` in float32."""
        return self._matrix("token_embd.weight")

    @property
    def head(self) -> Tensor | None:
        """The LM head ``(vocabulary, hidden)`` in float32; None if it is tied to the embeddings."""
        return self._matrix("output.weight") if "output.weight" in self._tensors else None

    def sampled(self) -> str:
        """SHA-256 of the names, types and shapes of all tensors, and of samples of their bytes."""
        total = hashlib.sha256()
        for name, tensor in sorted(self._tensors.items()):
            flat = tensor.data.reshape(-1).view(np.uint8)
            places = np.linspace(0, len(flat) - 1, min(len(flat), _SAMPLES)).astype(np.int64)
            total.update(f"{name} {tensor.tensor_type} {tuple(tensor.shape)} ".encode())
            total.update(flat[places].tobytes())
        return total.hexdigest()

    def _matrix(self, name: str) -> Tensor:
        tensor = self._tensors.get(name)
        if tensor is None:
            raise UnsupportedModelError(f"{self.path.name} has no tensor {name!r}; it is not a language model.")
        return torch.from_numpy(np.array(self._dequantize(tensor.data, tensor.tensor_type), np.float32))
