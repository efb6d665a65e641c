"""Pocket's LoRA as llama.cpp reads it: a GGUF file in the user's cache."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from aim_backends.pocket.lm import LlamaSpec
from aim_backends.pocket.model import DATA
from aim_backends.pocket.weights import cache_root
from aim_sdk.files.atomic import write_atomic, writing
from aim_sdk.support.dependencies import imported

NAMES: Final = {"q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output"}


def pocket_adapter() -> Path:
    """The file; it is written if it is not there."""
    source = DATA / "lora.safetensors"
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    path = cache_root() / "pocket" / f"lora-{digest[:16]}.gguf"
    if not path.is_file():
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory() as folder:
                _write(made := Path(folder) / path.name, load_file(source))
                write_atomic(path, made.read_bytes())
    return path


def _write(path: Path, tensors: dict[str, Tensor]) -> None:
    gguf = imported("gguf", extra="llamacpp")
    rank = next(len(tensor) for name, tensor in tensors.items() if name.endswith(".lora_a"))
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(rank))  # so that it is added as it is
    spec = LlamaSpec()
    heads = {"q_proj": spec.heads, "k_proj": spec.key_value_heads}
    for name, tensor in tensors.items():
        _, layer, _, projection, part = name.split(".")
        values = tensor.float().numpy()
        if part == "lora_b" and projection in heads:
            values = turned(values, heads[projection])
        writer.add_tensor(f"blk.{layer}.{NAMES[projection]}.weight.{part}", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def turned(rows: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Queries' and keys' rows in llama.cpp's order: a rotated pair stands side by side."""
    halves = rows.reshape(heads, 2, len(rows) // heads // 2, -1)
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows.shape))
