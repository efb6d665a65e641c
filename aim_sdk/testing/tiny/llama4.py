"""Llama 4."""

from pathlib import Path

from transformers import (
    Llama4Config,
    Llama4ForConditionalGeneration,
    Llama4ImageProcessor,
    Llama4Processor,
    Llama4TextConfig,
    Llama4VisionConfig,
)

from .common import HIDDEN, byte_level_tokenizer, save, text_options, tower_options
from .generic import SIZE


def llama4(folder: Path) -> None:
    """4 visual tokens a tile, up to two tiles and the whole; experts, a chunked layer and one without positions."""
    special = ["<|begin_of_text|>", "<|eot|>", "<|header_start|>", "<|header_end|>", "<|finetune_right_pad|>"]
    images = ["image", "image_start", "image_end", "patch", "tile_x_separator", "tile_y_separator"]
    tokenizer = byte_level_tokenizer(
        [*special, *(f"<|{name}|>" for name in images), *(f"<|reserved_special_token_{i}|>" for i in range(4))],
        bos="<|begin_of_text|>",
        bos_token="<|begin_of_text|>",
        eos_token="<|eot|>",
        pad_token="<|finetune_right_pad|>",
    )
    # The template is the processor's own default.
    processor = Llama4Processor(Llama4ImageProcessor(size=SIZE, max_patches=2), tokenizer, patch_size=8)
    text = Llama4TextConfig(
        **text_options(len(tokenizer), tokenizer),
        intermediate_size_mlp=2 * HIDDEN,
        head_dim=8,
        num_local_experts=2,
        interleave_moe_layer_step=2,
        no_rope_layers=[1, 0],
        attention_chunk_size=64,
    )
    tower = Llama4VisionConfig(
        **{**tower_options(8), "intermediate_size": 4 * HIDDEN},
        vision_output_dim=HIDDEN,
        projector_input_dim=HIDDEN,
        projector_output_dim=HIDDEN,
    )
    token = tokenizer.convert_tokens_to_ids
    config = Llama4Config(
        vision_config=tower,
        text_config=text,
        boi_token_index=token("<|image_start|>"),
        eoi_token_index=token("<|image_end|>"),
        image_token_index=token("<|patch|>"),
    )
    save(folder, Llama4ForConditionalGeneration(config), processor)
