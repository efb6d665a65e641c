"""A loaded GGUF model, and the contexts in which it runs: one for each call, as large as it has to be.

Contexts share the weights and nothing else. So threads do not meet, and nothing is left after a call or an exception.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from aim_backends.llamacpp.gguf_file import GgufFile
from aim_backends.llamacpp.library import library
from aim_backends.llamacpp.tokens import Tokens
from aim_sdk.errors import CorruptArtifactError, UnsupportedModelError

_ROPE_OF_ONE_POSITION: Final = (-1, 0, 2)
"""None, the usual one and NeoX's; others (M-RoPE) have several positions per token."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """How a model is run."""

    dtype: torch.dtype
    """Of keys and values."""
    gpu_layers: int
    """Layers that a GPU computes, if the library was built for one."""
    threads: int
    """Of the CPU."""


class LoadedModel:
    """A model with its tokenizer and its embeddings.

    Args:
        path: the GGUF file.
        runtime: how it is run.
        title: what messages call it.
        adapter: a LoRA in the GGUF format that is added to the weights.

    Raises:
        BackendError, CorruptArtifactError: it cannot be loaded, or is not a decoder-only language model.
    """

    def __init__(self, path: Path, runtime: Runtime, *, title: str, adapter: Path | None = None) -> None:
        self.library = library()
        self.file = GgufFile(self.library, path)
        self.runtime, self.title, self.process = runtime, title, os.getpid()
        params = self.library.llama_model_default_params()
        params.n_gpu_layers = runtime.gpu_layers
        pointer = self.library.llama_model_load_from_file(str(path).encode(), params)
        if not pointer:
            raise CorruptArtifactError(f"{path}: llama.cpp cannot load it{self.library.said()}.")
        self.pointer: int = pointer
        self._adapter: int | None = None
        weakref.finalize(self, self.library.llama_model_free, pointer)
        if (reason := self._unsupported()) is not None:
            raise UnsupportedModelError(f"{path.name}: {reason}")
        if adapter is not None:
            self._adapter = self.library.llama_adapter_lora_init(pointer, str(adapter).encode())
            if not self._adapter:
                raise CorruptArtifactError(f"{adapter}: llama.cpp cannot load this LoRA{self.library.said()}.")
        self.tokens = Tokens(self.library, pointer, title)

    @property
    def hidden_size(self) -> int:
        """Width of hidden states and of input embeddings."""
        return int(self.library.llama_model_n_embd(self.pointer))

    @property
    def vocabulary_size(self) -> int:
        """Numbers of logits."""
        return len(self.tokens)

    @property
    def layers(self) -> int:
        """Decoder layers."""
        return int(self.library.llama_model_n_layer(self.pointer))

    @property
    def context(self) -> int:
        """Positions that it was trained on."""
        return int(self.library.llama_model_n_ctx_train(self.pointer))

    @cached_property
    def kv_numbers(self) -> int | None:
        """Numbers of the keys and values of one token in all layers; None if the file does not say."""
        value, kind = self.file.value, self.file.value("general.architecture")
        heads, own = value(f"{kind}.attention.head_count"), value(f"{kind}.attention.head_count_kv")
        if not isinstance(heads, int):
            return None
        width = self.hidden_size // heads
        keys, values = (value(f"{kind}.attention.{name}_length") or width for name in ("key", "value"))
        each = own if isinstance(own, list) else [own or heads] * self.layers
        return int(sum(each) * (keys + values))

    @cached_property
    def embeddings(self) -> Tensor:
        """The input embeddings ``(vocabulary, embed)`` in float32."""
        found = self.file.matrix("token_embd.weight", self.hidden_size)
        if found is None:
            raise UnsupportedModelError(f"{self.file.path.name} has no input embeddings.")
        return found

    @cached_property
    def head(self) -> Tensor:
        """The LM head ``(vocabulary, hidden)`` in float32; the embeddings, if it is tied to them."""
        own = self.file.matrix("output.weight", self.hidden_size)
        return self.embeddings if own is None else own

    def embed(self, ids: Sequence[int]) -> Tensor:
        """The embeddings of tokens ``(tokens, embed)``."""
        return self.embeddings[torch.tensor(ids, dtype=torch.long)]

    def adapt(self, context: int) -> None:
        """Add the LoRA, if there is one, to a new context."""
        if self._adapter is not None:
            one, scale = (ctypes.c_void_p * 1)(self._adapter), (ctypes.c_float * 1)(1.0)
            if self.library.llama_set_adapters_lora(context, one, 1, scale):
                raise CorruptArtifactError(f"{self.title}: llama.cpp does not take its LoRA{self.library.said()}.")

    def _unsupported(self) -> str | None:
        """Why this model cannot be used; None if it can."""
        library, pointer = self.library, self.pointer
        if library.llama_model_has_encoder(pointer):
            return "it has an encoder; its decoder gives no causal states of a demonstration's text."
        if library.llama_model_is_recurrent(pointer) or library.llama_model_is_hybrid(pointer):
            return "it is recurrent; this backend goes back in a sequence, which such models cannot."
        if library.llama_model_rope_type(pointer) not in _ROPE_OF_ONE_POSITION:
            return (
                "its positions have several dimensions (M-RoPE), which this backend does not write.\n"
                "Next: the backend 'qwen-vl', which runs such models by transformers."
            )
        return None
