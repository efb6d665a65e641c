"""One context of llama.cpp: keys and values of some sequences, which nobody else sees."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from aim_backends.llamacpp.library import Batch, EvalCallback
from aim_sdk.errors import ArtifactWriteError, BackendError, InputError

if TYPE_CHECKING:
    from aim_backends.llamacpp.loaded import LoadedModel

_BLOCK: Final = 256
"""Positions of a sequence are a multiple of it."""
_BATCH: Final = 512
"""Tokens of one forward."""
_MOST_SEQUENCES: Final = 256
"""Of one context, a limit of the library."""
_NO_POOLING: Final = 0
KV_TYPES: Final = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 30}
"""The library's numbers of the types that keys and values may have."""
_ALL: Final = -1


@dataclass(frozen=True, slots=True)
class State:
    """Keys and values of the first positions of a sequence."""

    data: bytes
    length: int


class LlamaContext:
    """Runs sequences; their positions begin at 0. A context manager: memory is free after it.

    Args:
        model: the loaded model.
        sequences: how many.
        positions: the most of one sequence; of ``begins`` they take none.
        begins: keys and values with which all sequences begin; they are there once.
        states: whether it gives hidden states as well as logits.
        flash: whether attention is computed in one step; keys and values are laid out otherwise then.
        layers: decoder layers before the last one (from 1) whose states are wanted besides.
    """

    _pointer: int | None = None

    def __init__(
        self,
        model: LoadedModel,
        sequences: int,
        positions: int,
        *,
        begins: State | None = None,
        states: bool = False,
        layers: Sequence[int] = (),
        flash: bool = False,
    ) -> None:
        if os.getpid() != model.process:
            raise BackendError(
                f"{model.title} was loaded before this process was forked, and its threads are not here.\n"
                "Next: load it in each process; multiprocessing's start method 'spawn' copies nothing."
            )
        self._model = model  # which must not be freed before
        self._library, self._hidden, self._vocabulary = model.library, model.hidden_size, model.vocabulary_size
        self._layers = model.layers
        self._seen: dict[int, list[Tensor]] = {layer: [] for layer in layers}
        if sequences > _MOST_SEQUENCES:
            raise InputError(
                f"{sequences} prompts at a time; llama.cpp runs at most {_MOST_SEQUENCES}.\n"
                f"Next: batch_size={_MOST_SEQUENCES}, or less."
            )
        self._library.forget()
        params = self._library.llama_context_default_params()
        params.n_ctx = sequences * _rounded(positions)
        if begins is not None:  # one memory, in which a position may be of several sequences
            params.n_ctx, params.kv_unified = _rounded(begins.length + sequences * positions), True
        params.n_batch = params.n_ubatch = min(_BATCH, max(positions, sequences))
        params.n_seq_max = sequences
        params.n_threads = params.n_threads_batch = model.runtime.threads
        params.pooling_type, params.flash_attn_type = _NO_POOLING, int(flash)
        params.type_k = params.type_v = KV_TYPES[model.runtime.dtype]
        params.embeddings = states
        self._callback = EvalCallback(self._note)
        if layers:
            params.cb_eval = self._callback
        self._pointer = self._library.llama_init_from_model(model.pointer, params)
        if not self._pointer:
            raise InputError(f"llama.cpp cannot make a context of {params.n_ctx:,} positions{self._library.said()}.")
        model.adapt(self._pointer)
        self._lengths = [0] * sequences
        if begins is not None:
            self._begin(begins)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free its memory; it cannot be used after that."""
        if self._pointer:
            self._library.llama_free(self._pointer)
            self._pointer = None

    def __del__(self) -> None:
        self.close()

    @property
    def lengths(self) -> list[int]:
        """Positions of each sequence."""
        return list(self._lengths)

    def run(self, sequence: int, given: Float[Tensor, "tokens embed"] | Sequence[int]) -> Float[Tensor, " vocabulary"]:
        """Run embeddings, or tokens, at the end of a sequence; the logits after the last one."""
        for start in range(0, len(given), _BATCH):
            part = given[start : start + _BATCH]
            wanted = [start + n == len(given) - 1 for n in range(len(part))]
            if isinstance(part, Tensor):
                self._decode([sequence] * len(part), wanted, embeddings=_floats(part))
            else:
                self._decode([sequence] * len(part), wanted, tokens=part)
        return self._logits(len(part) - 1)

    def states(self, sequence: int, rows: Float[Tensor, "tokens embed"]) -> dict[int, Float[Tensor, "tokens hidden"]]:
        """Run embeddings; the states of each wanted layer, by its number; the last one is there."""
        last = list[Tensor]()
        for start in range(0, len(rows), _BATCH):
            part = rows[start : start + _BATCH]
            self._decode([sequence] * len(part), [True] * len(part), embeddings=_floats(part))
            found = (self._library.llama_get_embeddings_ith(self._pointer, n) for n in range(len(part)))
            last += [_copied(pointer, self._hidden) for pointer in found]
        seen = {layer: torch.cat(parts) for layer, parts in self._seen.items()}
        for parts in self._seen.values():
            parts.clear()
        return {**seen, self._layers: torch.stack(last)}

    def step(self, tokens: Sequence[int]) -> Float[Tensor, "sequences vocabulary"]:
        """Run one token at the end of each sequence; the logits after them."""
        self._decode(list(range(len(tokens))), [True] * len(tokens), tokens=tokens)
        return torch.stack([self._logits(n) for n in range(len(tokens))])

    def follow(self, sequence: int, tokens: Sequence[int]) -> Float[Tensor, "tokens vocabulary"]:
        """Run tokens at the end of a sequence; the logits after each. They are taken off again."""
        length, found = self._lengths[sequence], list[Tensor]()
        for start in range(0, len(tokens), _BATCH):
            part = tokens[start : start + _BATCH]
            self._decode([sequence] * len(part), [True] * len(part), tokens=part)
            found += [self._logits(n) for n in range(len(part))]
        memory = self._library.llama_get_memory(self._pointer)
        self._library.llama_memory_seq_rm(memory, sequence, length, _ALL)
        self._lengths[sequence] = length
        return torch.stack(found)

    def saved(self, sequence: int) -> State:
        """A sequence's keys and values."""
        size = self._library.llama_state_seq_get_size(self._pointer, sequence)
        buffer = ctypes.create_string_buffer(size)
        self._library.llama_state_seq_get_data(self._pointer, buffer, size, sequence)
        return State(buffer.raw, self._lengths[sequence])

    def save(self, sequence: int, path: Path, labels: Sequence[int]) -> None:
        """Write a sequence's keys and values to a file, as a server's slot restores them.

        Args:
            sequence: its number.
            path: the file.
            labels: a token for each position, by which the server knows them again.

        Raises:
            ArtifactWriteError: it cannot be written.
        """
        ids = (ctypes.c_int32 * len(labels))(*labels)
        if not self._library.llama_state_seq_save_file(self._pointer, str(path).encode(), sequence, ids, len(labels)):
            raise ArtifactWriteError(f"{path}: llama.cpp cannot write it{self._library.said()}.")

    def _begin(self, state: State) -> None:
        if not self._library.llama_state_seq_set_data(self._pointer, state.data, len(state.data), 0):
            raise InputError(f"llama.cpp does not take back {state.length} positions{self._library.said()}.")
        memory = self._library.llama_get_memory(self._pointer)
        for sequence in range(1, len(self._lengths)):
            self._library.llama_memory_seq_cp(memory, 0, sequence, _ALL, _ALL)
        self._lengths = [state.length] * len(self._lengths)

    def _decode(
        self,
        sequences: Sequence[int],
        wanted: Sequence[bool],
        *,
        embeddings: Any = None,
        tokens: Sequence[int] | None = None,
    ) -> None:
        count = len(sequences)
        positions = (ctypes.c_int32 * count)()
        for n, sequence in enumerate(sequences):
            positions[n] = self._lengths[sequence]
            self._lengths[sequence] += 1
        ids = [(ctypes.c_int32 * 1)(sequence) for sequence in sequences]
        pointers = (ctypes.POINTER(ctypes.c_int32) * count)(
            *(ctypes.cast(one, ctypes.POINTER(ctypes.c_int32)) for one in ids)
        )
        batch = Batch(
            n_tokens=count,
            token=None if tokens is None else (ctypes.c_int32 * count)(*tokens),
            embd=None if embeddings is None else embeddings.ctypes.data_as(ctypes.POINTER(ctypes.c_float)),
            pos=positions,
            n_seq_id=(ctypes.c_int32 * count)(*([1] * count)),
            seq_id=pointers,
            logits=(ctypes.c_int8 * count)(*wanted),
        )
        if status := self._library.llama_decode(self._pointer, batch):
            raise InputError(f"llama.cpp cannot run {count} tokens (status {status}){self._library.said()}.")

    def _logits(self, place: int) -> Tensor:
        return _copied(self._library.llama_get_logits_ith(self._pointer, place), self._vocabulary)

    def _note(self, tensor: int, asking: bool, data: Any) -> bool:
        """Called before each tensor is computed, and after it if it was wanted."""
        name, _, layer = (self._library.ggml_get_name(tensor) or b"").decode().rpartition("-")
        wanted = name == "l_out" and int(layer) + 1 in self._seen
        if wanted and not asking:
            found = torch.empty(self._library.ggml_nbytes(tensor) // 4, dtype=torch.float32)
            self._library.ggml_backend_tensor_get(tensor, found.data_ptr(), 0, 4 * len(found))
            self._seen[int(layer) + 1].append(found.view(-1, self._hidden))
        return wanted or not asking


def _floats(rows: Tensor) -> NDArray[np.float32]:
    return np.ascontiguousarray(rows.numpy(), np.float32)


def _rounded(positions: int) -> int:
    return -(-positions // _BLOCK) * _BLOCK


def _copied(pointer: Any, size: int) -> Tensor:
    return torch.from_numpy(np.ctypeslib.as_array(pointer, (size,)).copy())
