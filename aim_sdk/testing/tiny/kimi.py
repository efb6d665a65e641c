"""Kimi K2.5."""

from pathlib import Path
from typing import Any

from transformers import (
    DeepseekV3Config,
    Kimi_K25Config,
    Kimi_K25ForConditionalGeneration,
    Kimi_K25ImageProcessor,
    Kimi_K25Processor,
    Kimi_K25VideoProcessor,
    Kimi_K25VisionConfig,
)

from .common import HIDDEN, byte_level_tokenizer, save, spare, text_options

TEMPLATE = """{% for message in messages %}\
{{ '<|im_' + message['role'] + '|>' + message['role'] + '<|im_middle|>' }}\
{{ '<think></think>' if message['role'] == 'assistant' }}{% for part in message['content'] %}\
{% if part['type'] == 'image' %}{{ '<|media_begin|>image<|media_content|><|media_pad|><|media_end|>' }}\
{% else %}{{ part['text'] }}{% endif %}{% endfor %}{{ '<|im_end|>' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_assistant|>assistant<|im_middle|><think>' }}\
{{ '</think>' if thinking is defined and not thinking }}{% endif %}"""

PATCHES: dict[str, Any] = {
    "patch_size": 8,
    "merge_size": 2,
    "max_patches": 64,
    "size": {"max_height": 16, "max_width": 16},
}


def kimi_k2_5(folder: Path) -> None:
    """A visual token for 16 pixels square, up to 24; a word between marks before them; latent keys, experts."""
    roles = ["<|im_user|>", "<|im_assistant|>", "<|im_system|>", "<|im_middle|>", "<|im_end|>", "<think>", "</think>"]
    media = ["<|media_begin|>", "<|media_content|>", "<|media_end|>", "<|media_pad|>", "<|kimi_k25_video_placeholder|>"]
    tokenizer = byte_level_tokenizer(
        ["[BOS]", "[EOS]", "[UNK]", "[PAD]", *roles, *media],
        bos_token="[BOS]",
        eos_token="<|im_end|>",
        pad_token="[PAD]",
        unk_token="[UNK]",
    )
    processor = Kimi_K25Processor(
        Kimi_K25ImageProcessor(**PATCHES), tokenizer, Kimi_K25VideoProcessor(**PATCHES), chat_template=TEMPLATE
    )
    rope = {"rope_type": "yarn", "rope_theta": 5e4, "factor": 8.0, "original_max_position_embeddings": 512}
    text = DeepseekV3Config(
        **text_options(spare(tokenizer), tokenizer) | {"num_key_value_heads": 4},
        first_k_dense_replace=1,
        moe_intermediate_size=HIDDEN,
        n_routed_experts=4,
        num_experts_per_tok=2,
        n_group=1,
        topk_group=1,
        q_lora_rank=16,
        kv_lora_rank=16,
        qk_rope_head_dim=8,
        qk_nope_head_dim=8,
        v_head_dim=8,
        rope_parameters=rope | {"beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0},
    )
    tower = Kimi_K25VisionConfig(
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=2,
        patch_size=8,
        pos_emb_height=8,
        pos_emb_width=8,
    )
    names = {"vision_start": "media_begin", "vision_end": "media_end"}
    config = Kimi_K25Config(
        text_config=text,
        vision_config=tower,
        projection_hidden_size=HIDDEN,
        image_token_id=processor.image_token_id,
        video_token_id=processor.video_token_id,
        tie_word_embeddings=False,
        **{f"{role}_token_id": tokenizer.convert_tokens_to_ids(f"<|{name}|>") for role, name in names.items()},
    )
    save(folder, Kimi_K25ForConditionalGeneration(config), processor)
