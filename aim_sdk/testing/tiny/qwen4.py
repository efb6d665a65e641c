"""Qwen4-Exp."""

from pathlib import Path

from transformers import (
    Qwen2VLImageProcessor,
    Qwen3_5Tokenizer,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
    Qwen4ExpConfig,
    Qwen4ExpForConditionalGeneration,
)

from .common import HIDDEN, IMAGE, WINDOW, byte_level_bpe, save, spare
from .qwen import PATCH, PATCHES, SIZE, SPECIAL, THINKING, TURNS


def qwen4_exp(folder: Path) -> None:
    """Linear attention with an n-gram table of its own, which looks ids up again, then sparse attention; experts."""
    vocab, merges = byte_level_bpe()
    tokenizer = Qwen3_5Tokenizer(
        vocab=dict(vocab),
        merges=list(merges),
        unk_token=None,
        eos_token="<|im_end|>",
        extra_special_tokens=SPECIAL,
        model_max_length=WINDOW,
    )
    tokenizer.add_tokens(["<think>", "</think>"])
    processor = Qwen3VLProcessor(
        Qwen2VLImageProcessor(size=SIZE, **PATCHES),
        tokenizer,
        Qwen3VLVideoProcessor(size=SIZE, **PATCHES),
        chat_template=TURNS + THINKING,
    )
    rope = {"rope_type": "default", "rope_theta": 1e7, "mrope_section": [2, 1, 1], "mrope_interleaved": True}
    text = {
        "vocab_size": spare(tokenizer),
        "hidden_size": HIDDEN,
        "num_hidden_layers": 2,
        "layer_types": ["linear_attention", "indexed_attention"],
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "max_position_embeddings": WINDOW,
        "rope_parameters": rope | {"partial_rotary_factor": 0.5},
        "bos_token_id": tokenizer.convert_tokens_to_ids("<|endoftext|>"),
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        **{
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
        },
        **{"num_experts": 4, "num_experts_per_tok": 2},
        **{"moe_intermediate_size": HIDDEN, "shared_expert_intermediate_size": HIDDEN},
        **{"hc_count": 2, "hc_lowrank": 8},
        **{"ple_layer_ids": [1], "heads_per_ngram": 2, "ngram_vocab_size_base": 100, "split_ngram_parts": 2},
        **{"indexer_n_heads": 8, "indexer_kv_heads": 1, "indexer_head_dim": 8},
        **{"indexer_budget": 32, "indexer_compress_ratio": 4},
    }
    vision = {
        **{"depth": 2, "num_heads": 2, "hidden_size": HIDDEN, "intermediate_size": 2 * HIDDEN},
        **{"out_hidden_size": HIDDEN, "num_position_embeddings": (IMAGE // PATCH) ** 2},
        **{"patch_size": PATCH, "temporal_patch_size": 2, "spatial_merge_size": 2},
    }
    names = {"image": "image_pad", "video": "video_pad", "vision_start": "vision_start", "vision_end": "vision_end"}
    config = Qwen4ExpConfig(
        text_config=text,
        vision_config=vision,
        **{f"{role}_token_id": tokenizer.convert_tokens_to_ids(f"<|{name}|>") for role, name in names.items()},
    )
    save(folder, Qwen4ExpForConditionalGeneration(config), processor)
