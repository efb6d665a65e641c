"""The tiny LLaVA-1.5 in the format of llama.cpp: a model and an image encoder in a GGUF file each, all in float32."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import gguf
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoProcessor

from aim_sdk.testing.tiny import build

CHAT_TEMPLATE: Final = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'].upper() + ': ' + message['content'] }}"
    "{{ '</s>' if message['role'] == 'assistant' else ' ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
"""Vicuna's, with contents that are strings, as llama.cpp has it."""

_LAYER: Final = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_TOWER: Final = {
    "layer_norm1": "ln1",
    "layer_norm2": "ln2",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_out",
    "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
}
Values = NDArray[np.float32]


def build_gguf(folder: Path) -> tuple[Path, Path]:
    """Write the checkpoint to ``folder``, and next to it `model.gguf` and `mmproj.gguf`; return these two."""
    build("llava-1.5", folder)
    tensors = {name: value.astype(np.float32) for name, value in load_file(folder / "model.safetensors").items()}
    config = AutoConfig.from_pretrained(folder)
    model, images = folder / "model.gguf", folder / "mmproj.gguf"
    _write(model, "llama", _language_model(tensors, config.text_config), lambda w: _describe(w, config, folder))
    _write(images, "clip", _image_encoder(tensors), lambda w: _describe_tower(w, config, folder))
    return model, images


def _write(path: Path, architecture: str, tensors: dict[str, Values], describe: Any) -> None:
    writer = gguf.GGUFWriter(path, architecture)
    describe(writer)
    for name, value in tensors.items():
        writer.add_tensor(name, np.ascontiguousarray(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _language_model(tensors: dict[str, Values], config: Any) -> dict[str, Values]:
    found = {}
    for name, value in tensors.items():
        place = name.replace("model.language_model.", "language_model.").replace("language_model.model.", "")
        place = place.removeprefix("language_model.")
        if place.startswith("layers."):
            _, layer, rest = place.split(".", 2)
            inner = rest.removesuffix(".weight")
            if inner in ("self_attn.q_proj", "self_attn.k_proj"):
                heads = config.num_attention_heads if "q_proj" in inner else config.num_key_value_heads
                value = value.reshape(heads, 2, len(value) // heads // 2, -1).swapaxes(1, 2).reshape(value.shape)
            found[f"blk.{layer}.{_LAYER[inner]}.weight"] = value
        elif place == "embed_tokens.weight":
            found["token_embd.weight"] = value
        elif place == "norm.weight":
            found["output_norm.weight"] = value
        elif name.endswith("lm_head.weight"):
            found["output.weight"] = value
    return found


def _image_encoder(tensors: dict[str, Values]) -> dict[str, Values]:
    found = {}
    for name, value in tensors.items():
        if "multi_modal_projector" in name:
            layer, part = name.split(".")[-2:]
            found[f"mm.{ {'linear_1': 0, 'linear_2': 2}[layer] }.{part}"] = value
        elif "encoder.layers." in name:
            layer, rest = name.split("encoder.layers.")[1].split(".", 1)
            inner, _, part = rest.rpartition(".")
            found[f"v.blk.{layer}.{_TOWER[inner]}.{part}"] = value
        else:
            for theirs, ours in (
                ("class_embedding", "v.class_embd"),
                ("patch_embedding.weight", "v.patch_embd.weight"),
                ("position_embedding.weight", "v.position_embd.weight"),
                ("pre_layrnorm.weight", "v.pre_ln.weight"),
                ("pre_layrnorm.bias", "v.pre_ln.bias"),
                ("post_layernorm.weight", "v.post_ln.weight"),
                ("post_layernorm.bias", "v.post_ln.bias"),
            ):
                if name.endswith(theirs):
                    found[ours] = value
    return found


def _describe(writer: Any, config: Any, folder: Path) -> None:
    text = config.text_config
    writer.add_context_length(text.max_position_embeddings)
    writer.add_embedding_length(text.hidden_size)
    writer.add_block_count(text.num_hidden_layers)
    writer.add_feed_forward_length(text.intermediate_size)
    writer.add_head_count(text.num_attention_heads)
    writer.add_head_count_kv(text.num_key_value_heads)
    writer.add_layer_norm_rms_eps(text.rms_norm_eps)
    writer.add_rope_dimension_count(text.hidden_size // text.num_attention_heads)
    writer.add_rope_freq_base(text.rope_parameters["rope_theta"])
    writer.add_vocab_size(text.vocab_size)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    ranks = {"".join(pair): rank for rank, pair in reversed(list(enumerate(merges)))}
    added = tokenizer.get_added_tokens_decoder()
    pieces, scores, kinds = [], [], []
    for index in range(text.vocab_size):
        piece = tokenizer.id_to_token(index) or f"[PAD{index}]"
        pieces.append(piece.encode())
        scores.append(-float(ranks.get(piece, len(ranks))))
        kinds.append(_kind(piece, index, added))
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(pieces)
    writer.add_token_scores(scores)
    writer.add_token_types(kinds)
    writer.add_bos_token_id(tokenizer.token_to_id("<s>"))
    writer.add_eos_token_id(tokenizer.token_to_id("</s>"))
    writer.add_unk_token_id(tokenizer.token_to_id("<unk>"))
    writer.add_add_bos_token(True)
    writer.add_chat_template(CHAT_TEMPLATE)


def _kind(piece: str, index: int, added: Any) -> int:
    if piece == "<unk>":
        return int(gguf.TokenType.UNKNOWN)
    if index in added:
        return int(gguf.TokenType.CONTROL)
    if piece.startswith("[PAD"):
        return int(gguf.TokenType.UNUSED)
    if piece.startswith("<0x") and len(piece) == 6:
        return int(gguf.TokenType.BYTE)
    return int(gguf.TokenType.NORMAL)


def _describe_tower(writer: Any, config: Any, folder: Path) -> None:
    vision, images = config.vision_config, AutoProcessor.from_pretrained(folder).image_processor
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "mlp")
    writer.add_bool("clip.use_gelu", False)  # CLIP's quick one
    writer.add_uint32("clip.vision.embedding_length", vision.hidden_size)
    writer.add_uint32("clip.vision.feed_forward_length", vision.intermediate_size)
    writer.add_uint32("clip.vision.block_count", vision.num_hidden_layers)
    writer.add_uint32("clip.vision.projection_dim", config.text_config.hidden_size)
    writer.add_uint32("clip.vision.attention.head_count", vision.num_attention_heads)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", vision.layer_norm_eps)
    writer.add_uint32("clip.vision.image_size", vision.image_size)
    writer.add_uint32("clip.vision.patch_size", vision.patch_size)
    writer.add_array("clip.vision.image_mean", list(map(float, images.image_mean)))
    writer.add_array("clip.vision.image_std", list(map(float, images.image_std)))
