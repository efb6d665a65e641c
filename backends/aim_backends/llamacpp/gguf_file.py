"""What a GGUF file holds besides what llama.cpp loads: its metadata, the input embeddings and the LM head."""

from __future__ import annotations

import ctypes
import hashlib
import weakref
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from aim_backends.llamacpp.library import GgufInit, Library
from aim_sdk.errors import CorruptArtifactError, UnsupportedModelError
from aim_sdk.support.dependencies import imported

_SAMPLES: Final = 256
_STRING, _ARRAY = 8, 9
_INTEGERS: Final = {4: "u32", 5: "i32", 10: "u64", 11: "i64"}
_IN_ARRAYS: Final = {4: ctypes.c_uint32, 5: ctypes.c_int32}
"""Types of values, as in gguf.h."""


class GgufFile:
    """A GGUF file, memory-mapped.

    Raises:
        CorruptArtifactError: it is no GGUF file, or is cut.
    """

    def __init__(self, library: Library, path: Path) -> None:
        self._gguf = imported("gguf", extra="llamacpp")
        self._library, self.path = library, path
        library.forget()
        self._handle = library.gguf_init_from_file(str(path).encode(), GgufInit(no_alloc=True))
        if not self._handle:
            raise CorruptArtifactError(f"{path}: not a whole GGUF file{library.said()}.")
        weakref.finalize(self, library.gguf_free, self._handle)
        names = (library.gguf_get_tensor_name(self._handle, n) for n in range(library.gguf_get_n_tensors(self._handle)))
        self._places = {name.decode(): place for place, name in enumerate(names)}
        self._bytes = np.memmap(path, np.uint8, "r")
        ends = [start + size for start, size in map(self._span, self._places)]
        if (end := max(ends, default=0)) > len(self._bytes):
            raise CorruptArtifactError(f"{path}: not a whole GGUF file ({len(self._bytes):,} bytes of {end:,}).")

    def value(self, key: str) -> Any:
        """A text, an integer or a list of integers of the metadata; None if it is not there."""
        library, handle = self._library, self._handle
        if (place := library.gguf_find_key(handle, key.encode())) < 0:
            return None
        kind = library.gguf_get_kv_type(handle, place)
        if kind == _STRING:
            return library.gguf_get_val_str(handle, place).decode(errors="replace")
        if kind in _INTEGERS:
            return getattr(library, f"gguf_get_val_{_INTEGERS[kind]}")(handle, place)
        if kind == _ARRAY and (own := library.gguf_get_arr_type(handle, place)) in _IN_ARRAYS:
            data = ctypes.cast(library.gguf_get_arr_data(handle, place), ctypes.POINTER(_IN_ARRAYS[own]))
            return list(data[: library.gguf_get_arr_n(handle, place)])
        return None

    def matrix(self, name: str, width: int) -> Tensor | None:
        """A tensor of rows of ``width`` numbers, in float32; None if it is not there.

        Raises:
            UnsupportedModelError: its numbers are of a type that gguf does not know.
        """
        if name not in self._places:
            return None
        start, size = self._span(name)
        try:
            kind = self._gguf.GGMLQuantizationType(self._kind(name))
            block, length = self._gguf.GGML_QUANT_SIZES[kind]
            rows = self._bytes[start : start + size].reshape(-1, width // block * length)
            return torch.from_numpy(np.array(self._gguf.quants.dequantize(rows, kind), np.float32))
        except (ValueError, KeyError, NotImplementedError) as error:
            raise UnsupportedModelError(f"{self.path.name}: {name} cannot be read ({error}).") from error

    def sampled(self) -> str:
        """SHA-256 of the names, types and sizes of all tensors, and of samples of their bytes."""
        total = hashlib.sha256()
        for name in sorted(self._places):
            start, size = self._span(name)
            places = start + np.linspace(0, size - 1, min(size, _SAMPLES)).astype(np.int64)
            total.update(f"{name} {self._kind(name)} {size} ".encode())
            total.update(self._bytes[places].tobytes())
        return total.hexdigest()

    def _kind(self, name: str) -> int:
        kind: int = self._library.gguf_get_tensor_type(self._handle, self._places[name])
        return kind

    def _span(self, name: str) -> tuple[int, int]:
        """The first byte, and how many there are."""
        library, handle, place = self._library, self._handle, self._places[name]
        first = library.gguf_get_data_offset(handle) + library.gguf_get_tensor_offset(handle, place)
        return int(first), int(library.gguf_get_tensor_size(handle, place))
