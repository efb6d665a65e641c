"""Images by llama.cpp's own multimodal library: a projector file (``mmproj``) next to the model."""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import torch
from cachetools import LRUCache
from jaxtyping import Float
from torch import Tensor

from aim_backends.llamacpp.library import VisionText
from aim_backends.llamacpp.loaded import LoadedModel
from aim_sdk.errors import CorruptArtifactError, ImageError, UnsupportedModelError
from aim_sdk.files.images import describe, image_digest, load_image
from aim_sdk.types import ImageInput

CAPACITY: Final = 64
"""Images whose embeddings are kept: 576 tokens of 4,096 numbers are 9 MB."""
_TEXT, _IMAGE = 0, 1
"""Kinds of a chunk, as in mtmd.h."""


class VisionFile:
    """Encodes images one by one, and keeps the last ones by content; thread-safe.

    Raises:
        CorruptArtifactError, UnsupportedModelError: it cannot be loaded, is not of this model, or
            has no images.
    """

    def __init__(self, model: LoadedModel, path: Path) -> None:
        self._model, self._library, self._lock = model, model.library, threading.Lock()
        self._kept: LRUCache[str, Tensor] = LRUCache(CAPACITY)
        self._library.forget()
        params = self._library.mtmd_context_params_default()
        params.use_gpu, params.print_timings = model.runtime.gpu_layers > 0, False
        params.n_threads = model.runtime.threads
        pointer = self._library.mtmd_init_from_file(str(path).encode(), model.pointer, params)
        if not pointer:
            raise CorruptArtifactError(
                f"{path}: llama.cpp cannot load it for {model.title}{self._library.said()}. Expected the projector of "
                "the same checkpoint."
            )
        self._pointer = pointer
        weakref.finalize(self, self._library.mtmd_free, pointer)
        if not self._library.mtmd_support_vision(pointer):
            raise UnsupportedModelError(f"{path.name} takes no images.")
        if self._library.mtmd_decode_use_mrope(pointer):
            raise UnsupportedModelError(
                f"{path.name}: its images have positions of several dimensions (M-RoPE), which this backend does not "
                "write. Next: the backend 'qwen-vl', which runs such models by transformers."
            )

    def encode(self, sources: Sequence[ImageInput]) -> list[Float[Tensor, "tokens embed"]]:
        """The embeddings of each image, with the tokens that the family writes round it.

        Raises:
            ImageError: one cannot be decoded.
        """
        return [self._encoded(source) for source in sources]

    def count(self, source: ImageInput) -> int:
        """How many positions an image takes; it is prepared, and not encoded.

        Raises:
            ImageError: it cannot be decoded.
        """
        with self._lock, self._chunks(source) as chunks:
            return sum(self._library.mtmd_input_chunk_get_n_tokens(chunk) for chunk in chunks)

    def _encoded(self, source: ImageInput) -> Tensor:
        digest = image_digest(source)
        with self._lock:
            if (kept := self._kept.get(digest)) is not None:
                return kept
            with self._chunks(source) as chunks:
                found = torch.cat([self._embeddings(chunk, source) for chunk in chunks])
            self._kept[digest] = found
            return found

    @contextmanager
    def _chunks(self, source: ImageInput) -> Iterator[list[int]]:
        """What the family writes for an image: visual tokens, and tokens round them."""
        library = self._library
        picture = np.ascontiguousarray(load_image(source), np.uint8)  # (height, width, 3)
        with ExitStack() as stack:
            bitmap = library.mtmd_bitmap_init(picture.shape[1], picture.shape[0], picture.tobytes())
            stack.callback(library.mtmd_bitmap_free, bitmap)
            made = library.mtmd_input_chunks_init()
            stack.callback(library.mtmd_input_chunks_free, made)
            marker = library.mtmd_default_marker()
            text = VisionText(text=marker, text_len=len(marker), add_special=False, parse_special=True)
            bitmaps = (ctypes.c_void_p * 1)(bitmap)
            if status := library.mtmd_tokenize(self._pointer, made, ctypes.byref(text), bitmaps, 1):
                raise ImageError(f"{describe(source)}: llama.cpp cannot prepare it (status {status}).")
            count = library.mtmd_input_chunks_size(made)
            yield [library.mtmd_input_chunks_get(made, place) for place in range(count)]

    def _embeddings(self, chunk: int, source: ImageInput) -> Tensor:
        library = self._library
        kind = library.mtmd_input_chunk_get_type(chunk)
        if kind == _TEXT:
            count = ctypes.c_size_t()
            ids = library.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(count))
            return self._model.embed(ids[: count.value])
        assert kind == _IMAGE, kind
        if status := library.mtmd_encode_chunk(self._pointer, chunk):
            raise ImageError(f"{describe(source)}: llama.cpp cannot encode it (status {status}).")
        shape = library.mtmd_input_chunk_get_n_tokens(chunk), self._model.hidden_size
        return torch.from_numpy(np.ctypeslib.as_array(library.mtmd_get_output_embd(self._pointer), shape).copy())
