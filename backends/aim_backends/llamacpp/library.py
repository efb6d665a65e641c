"""llama.cpp's C functions, out of the prebuilt wheel ``xllamacpp``: those that this backend calls, and no others.

The layouts below are those of llama.h and mtmd.h in the wheel that the SDK was tested with. A library of another
version may lay its parameters out differently, so their defaults are compared when it is loaded.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import importlib.util
import logging
from collections import deque
from collections.abc import Callable
from ctypes import (
    POINTER,
    c_bool,
    c_char_p,
    c_float,
    c_int8,
    c_int32,
    c_int64,
    c_size_t,
    c_uint8,
    c_uint32,
    c_uint64,
    c_void_p,
)
from pathlib import Path
from typing import Any, Final

from aim_sdk.errors import MissingDependencyError
from aim_sdk.support.dependencies import install_command

TESTED: Final = "2026.10.11549"
"""The wheel's version whose layouts these are."""
_PACKAGE: Final = "xllamacpp"
_SPARE: Final = 384
"""Bytes after the fields that are named: what the library copies of a structure may be longer."""

EvalCallback = ctypes.CFUNCTYPE(c_bool, c_void_p, c_bool, c_void_p)
"""``(tensor, asking, data)``: asked whether a tensor is wanted, then told that it is computed."""
_LogCallback = ctypes.CFUNCTYPE(None, c_int32, c_char_p, c_void_p)


class ModelParams(ctypes.Structure):
    _fields_ = (
        ("devices", c_void_p),
        ("buffers", c_void_p),
        ("n_gpu_layers", c_int32),
        ("split_mode", c_int32),
        ("rest", c_uint8 * _SPARE),
    )


class ContextParams(ctypes.Structure):
    _fields_ = (
        ("n_ctx", c_uint32),
        ("n_batch", c_uint32),
        ("n_ubatch", c_uint32),
        ("n_seq_max", c_uint32),
        ("_between_16_28", c_uint8 * 12),
        ("n_threads", c_int32),
        ("n_threads_batch", c_int32),
        ("_between_36_44", c_uint8 * 8),
        ("pooling_type", c_int32),
        ("attention_type", c_int32),
        ("flash_attn_type", c_int32),
        ("_between_56_88", c_uint8 * 32),
        ("cb_eval", EvalCallback),
        ("cb_eval_user_data", c_void_p),
        ("type_k", c_int32),
        ("type_v", c_int32),
        ("_between_112_136", c_uint8 * 24),
        ("embeddings", c_bool),
        ("offload_kqv", c_bool),
        ("_between_138_141", c_uint8 * 3),
        ("kv_unified", c_bool),
        ("rest", c_uint8 * _SPARE),
    )


class Batch(ctypes.Structure):
    _fields_ = (
        ("n_tokens", c_int32),
        ("token", POINTER(c_int32)),
        ("embd", POINTER(c_float)),
        ("pos", POINTER(c_int32)),
        ("n_seq_id", POINTER(c_int32)),
        ("seq_id", POINTER(POINTER(c_int32))),
        ("logits", POINTER(c_int8)),
    )


class GgufInit(ctypes.Structure):
    _fields_ = (("no_alloc", c_bool), ("context", c_void_p))


class VisionParams(ctypes.Structure):
    _fields_ = (
        ("use_gpu", c_bool),
        ("print_timings", c_bool),
        ("n_threads", c_int32),
        ("rest", c_uint8 * _SPARE),
    )


class VisionText(ctypes.Structure):
    _fields_ = (
        ("text", c_char_p),
        ("text_len", c_size_t),
        ("add_special", c_bool),
        ("parse_special", c_bool),
        ("rest", c_uint8 * _SPARE),
    )


_SIGNATURES: Final[dict[str, tuple[Any, ...]]] = {
    "llama_backend_init": (None,),
    "llama_log_set": (None, _LogCallback, c_void_p),
    "llama_model_default_params": (ModelParams,),
    "llama_model_load_from_file": (c_void_p, c_char_p, ModelParams),
    "llama_model_free": (None, c_void_p),
    "llama_model_get_vocab": (c_void_p, c_void_p),
    "llama_model_n_embd": (c_int32, c_void_p),
    "llama_model_n_layer": (c_int32, c_void_p),
    "llama_model_n_ctx_train": (c_int32, c_void_p),
    "llama_model_n_params": (c_uint64, c_void_p),
    "llama_model_rope_type": (c_int32, c_void_p),
    "llama_model_has_encoder": (c_bool, c_void_p),
    "llama_model_is_recurrent": (c_bool, c_void_p),
    "llama_model_is_hybrid": (c_bool, c_void_p),
    "llama_context_default_params": (ContextParams,),
    "llama_init_from_model": (c_void_p, c_void_p, ContextParams),
    "llama_free": (None, c_void_p),
    "llama_decode": (c_int32, c_void_p, Batch),
    "llama_get_logits_ith": (POINTER(c_float), c_void_p, c_int32),
    "llama_get_embeddings_ith": (POINTER(c_float), c_void_p, c_int32),
    "llama_get_memory": (c_void_p, c_void_p),
    "llama_memory_seq_cp": (None, c_void_p, c_int32, c_int32, c_int32, c_int32),
    "llama_memory_seq_rm": (c_bool, c_void_p, c_int32, c_int32, c_int32),
    "llama_state_seq_get_size": (c_size_t, c_void_p, c_int32),
    "llama_state_seq_get_data": (c_size_t, c_void_p, c_void_p, c_size_t, c_int32),
    "llama_state_seq_set_data": (c_size_t, c_void_p, c_void_p, c_size_t, c_int32),
    "llama_state_seq_save_file": (c_size_t, c_void_p, c_char_p, c_int32, POINTER(c_int32), c_size_t),
    "llama_tokenize": (c_int32, c_void_p, c_char_p, c_int32, POINTER(c_int32), c_int32, c_bool, c_bool),
    "llama_token_to_piece": (c_int32, c_void_p, c_int32, c_char_p, c_int32, c_int32, c_bool),
    "llama_vocab_n_tokens": (c_int32, c_void_p),
    "llama_vocab_bos": (c_int32, c_void_p),
    "llama_vocab_eos": (c_int32, c_void_p),
    "llama_vocab_get_add_bos": (c_bool, c_void_p),
    "llama_vocab_is_eog": (c_bool, c_void_p, c_int32),
    "llama_vocab_get_attr": (c_int32, c_void_p, c_int32),
    "llama_adapter_lora_init": (c_void_p, c_void_p, c_char_p),
    "llama_adapter_lora_free": (None, c_void_p),
    "llama_set_adapters_lora": (c_int32, c_void_p, POINTER(c_void_p), c_size_t, POINTER(c_float)),
    "llama_supports_gpu_offload": (c_bool,),
    "gguf_init_from_file": (c_void_p, c_char_p, GgufInit),
    "gguf_free": (None, c_void_p),
    "gguf_get_n_tensors": (c_int64, c_void_p),
    "gguf_get_tensor_name": (c_char_p, c_void_p, c_int64),
    "gguf_get_tensor_type": (c_int32, c_void_p, c_int64),
    "gguf_get_tensor_size": (c_size_t, c_void_p, c_int64),
    "gguf_get_tensor_offset": (c_size_t, c_void_p, c_int64),
    "gguf_get_data_offset": (c_size_t, c_void_p),
    "gguf_find_key": (c_int64, c_void_p, c_char_p),
    "gguf_get_kv_type": (c_int32, c_void_p, c_int64),
    "gguf_get_val_str": (c_char_p, c_void_p, c_int64),
    "gguf_get_val_u32": (c_uint32, c_void_p, c_int64),
    "gguf_get_val_i32": (c_int32, c_void_p, c_int64),
    "gguf_get_val_u64": (c_uint64, c_void_p, c_int64),
    "gguf_get_val_i64": (c_int64, c_void_p, c_int64),
    "gguf_get_arr_type": (c_int32, c_void_p, c_int64),
    "gguf_get_arr_n": (c_size_t, c_void_p, c_int64),
    "gguf_get_arr_data": (c_void_p, c_void_p, c_int64),
    "ggml_get_name": (c_char_p, c_void_p),
    "ggml_nbytes": (c_size_t, c_void_p),
    "ggml_backend_tensor_get": (None, c_void_p, c_void_p, c_size_t, c_size_t),
    "mtmd_log_set": (None, _LogCallback, c_void_p),
    "mtmd_context_params_default": (VisionParams,),
    "mtmd_init_from_file": (c_void_p, c_char_p, c_void_p, VisionParams),
    "mtmd_free": (None, c_void_p),
    "mtmd_default_marker": (c_char_p,),
    "mtmd_support_vision": (c_bool, c_void_p),
    "mtmd_decode_use_mrope": (c_bool, c_void_p),
    "mtmd_bitmap_init": (c_void_p, c_uint32, c_uint32, c_char_p),
    "mtmd_bitmap_free": (None, c_void_p),
    "mtmd_input_chunks_init": (c_void_p,),
    "mtmd_input_chunks_free": (None, c_void_p),
    "mtmd_input_chunks_size": (c_size_t, c_void_p),
    "mtmd_input_chunks_get": (c_void_p, c_void_p, c_size_t),
    "mtmd_input_chunk_get_type": (c_int32, c_void_p),
    "mtmd_input_chunk_get_n_tokens": (c_size_t, c_void_p),
    "mtmd_input_chunk_get_tokens_text": (POINTER(c_int32), c_void_p, POINTER(c_size_t)),
    "mtmd_tokenize": (c_int32, c_void_p, c_void_p, POINTER(VisionText), POINTER(c_void_p), c_size_t),
    "mtmd_encode_chunk": (c_int32, c_void_p, c_void_p),
    "mtmd_get_output_embd": (POINTER(c_float), c_void_p),
}
_DEFAULTS: Final = {
    "n_ctx": 512,
    "n_batch": 2048,
    "n_ubatch": 512,
    "n_seq_max": 1,
    "offload_kqv": True,
    "kv_unified": False,
    "type_k": 1,
}
"""What a library with these layouts gives as defaults of `ContextParams`; 1: numbers of 16 bits."""
_COMPLAINTS: Final[deque[str]] = deque(maxlen=5)
"""The library's last errors, for messages."""
_ERROR: Final = 4
"""A level of the library's log."""


def _note(level: int, text: bytes, data: Any) -> None:
    if line := text.decode(errors="replace").strip():
        logging.getLogger("aim_backends.llamacpp").debug(line)
        if level == _ERROR:
            _COMPLAINTS.append(line)


_LOG: Final = _LogCallback(_note)
"""Lives as long as the process: the library calls it at any time."""


class Library:
    """The functions of `_SIGNATURES` by name."""

    def __init__(self, path: Path) -> None:
        self._loaded = ctypes.CDLL(str(path))
        for name, (result, *arguments) in _SIGNATURES.items():
            function = getattr(self._loaded, name)
            function.restype, function.argtypes = result, arguments
        self.llama_log_set(_LOG, None)
        self.mtmd_log_set(_LOG, None)
        self.llama_backend_init()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_") or name not in _SIGNATURES:
            raise AttributeError(name)
        found: Callable[..., Any] = getattr(self._loaded, name)
        return found

    def forget(self) -> None:
        """Something new begins: errors of before say nothing about it."""
        _COMPLAINTS.clear()

    def said(self) -> str:
        """The library's errors since `forget`, in brackets, for a message; empty if there are none."""
        return f" ({'; '.join(dict.fromkeys(_COMPLAINTS))})" if _COMPLAINTS else ""


@functools.cache
def library() -> Library:
    """Load the library once.

    Raises:
        MissingDependencyError: the wheel is not installed, or is of a version with other layouts.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    folders = [] if spec is None else [Path(place) for place in spec.submodule_search_locations or ()]
    files = [file for folder in folders for file in sorted(folder.glob(f"{_PACKAGE}*")) if file.suffix in _SUFFIXES]
    if not files:
        raise MissingDependencyError(f"llama.cpp is needed here and is not installed.\nNext: {install_command(_EXTRA)}")
    other = ""
    try:
        found = Library(files[0])
        given = found.llama_context_default_params()
        if any(getattr(given, name) != value for name, value in _DEFAULTS.items()):
            other = "lays its parameters out differently"
    except (OSError, AttributeError) as error:
        other = f"lacks a function ({error})"
    if other:
        raise MissingDependencyError(
            f"{_PACKAGE} {importlib.metadata.version(_PACKAGE)} {other}; this backend was tested with {TESTED}.\n"
            f'Next: {install_command(_EXTRA).rpartition(" ")[0]} "{_PACKAGE}=={TESTED}"'
        )
    return found


_SUFFIXES: Final = (".so", ".pyd", ".dylib")
_EXTRA: Final = "llamacpp"
