"""Step 3.7."""

from pathlib import Path

from transformers import (
    Step3p7Config,
    Step3p7ForConditionalGeneration,
    Step3p7ImageProcessor,
    Step3p7Processor,
    Step3p7TextConfig,
    Step3p7VisionConfig,
)

from .common import HIDDEN, byte_level_tokenizer, save, spare, text_options

TEMPLATE = """{{ bos_token }}{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}\
{% for part in message['content'] %}{{ '<im_patch>' if part['type'] == 'image' else part['text'] }}{% endfor %}\
{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"""

PATCH = 4
SIDE = 48  # of the whole picture, in pixels
TILE = 32


def step3p7(folder: Path) -> None:
    """4 visual tokens a tile, up to 9 tiles before the whole picture's 9; a dense layer, a windowed one of experts."""
    names = ["<|im_start|>", "<|im_end|>", "<think>", "</think>", "<im_start>", "<im_end>", "<im_patch>"]
    tokenizer = byte_level_tokenizer(
        ["<|begin_of_sentence|>", "<|end_of_sentence|>", *names, "<patch_start>", "<patch_end>", "<patch_newline>"],
        bos_token="<|begin_of_sentence|>",
        eos_token="<|im_end|>",
        pad_token="<|end_of_sentence|>",
    )
    images = Step3p7ImageProcessor(
        size={"height": SIDE, "width": SIDE},
        patch_size=TILE,
        max_image_size=3 * TILE,
        vision_patch_size=PATCH,
    )
    processor = Step3p7Processor(images, tokenizer, chat_template=TEMPLATE)
    text = Step3p7TextConfig(
        **text_options(spare(tokenizer), tokenizer),
        head_dim=8,
        layer_types=["full_attention", "sliding_attention"],
        mlp_layer_types=["dense", "sparse"],
        sliding_window=64,
        num_sliding_attention_heads=6,
        n_routed_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=HIDDEN,
        share_expert_dim=HIDDEN,
        moe_router_scaling_factor=2.0,
        swiglu_limits=[None, 7.0],
        swiglu_limits_shared=[None, 16.0],
        rope_theta=[5e6, 1e4],
        partial_rotary_factors=[0.5, 1.0],
    )
    tower = Step3p7VisionConfig(
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=PATCH,
        mlp_ratio=2.0,
        max_position_embeddings=(SIDE // PATCH) ** 2,
    )
    config = Step3p7Config(text_config=text, vision_config=tower, image_token_id=processor.image_token_id)
    save(folder, Step3p7ForConditionalGeneration(config), processor)
