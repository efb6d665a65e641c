"""LFM2-VL."""

from pathlib import Path

from transformers import (
    Lfm2Config,
    Lfm2VlConfig,
    Lfm2VlForConditionalGeneration,
    Lfm2VlImageProcessor,
    Lfm2VlProcessor,
    Siglip2VisionConfig,
)

from .common import HIDDEN, byte_level_tokenizer, save, spare, text_options

TEMPLATE = """{{ bos_token }}{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}\
{% for part in message['content'] %}{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}\
{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""


def lfm2_vl(folder: Path) -> None:
    """4 visual tokens a tile, two tiles and a thumbnail for a large image; a convolution, then attention."""
    special = ["<|pad|>", "<|startoftext|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    images = ["<image>", "<|image_start|>", "<|image_end|>", "<|img_thumbnail|>"]
    tokenizer = byte_level_tokenizer(
        [*special, *images, *(f"<|img_row_{row}_col_{column}|>" for row in (1, 2) for column in (1, 2))],
        bos="<|startoftext|>",
        bos_token="<|startoftext|>",
        eos_token="<|im_end|>",
        pad_token="<|pad|>",
        image_token="<image>",
        image_start_token="<|image_start|>",
        image_end_token="<|image_end|>",
        image_thumbnail="<|img_thumbnail|>",
    )
    images_processor = Lfm2VlImageProcessor(
        tile_size=32, encoder_patch_size=8, min_image_tokens=2, max_image_tokens=4, max_tiles=2, downsample_factor=2
    )
    processor = Lfm2VlProcessor(images_processor, tokenizer, chat_template=TEMPLATE)
    text = Lfm2Config(
        **text_options(spare(tokenizer), tokenizer),
        layer_types=["conv", "full_attention"],
        block_auto_adjust_ff_dim=False,
    )
    tower = Siglip2VisionConfig(
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=4,
        patch_size=8,
        num_patches=16,
        vision_use_head=False,
    )
    config = Lfm2VlConfig(
        vision_config=tower,
        text_config=text,
        image_token_id=processor.image_token_id,
        projector_hidden_size=HIDDEN,
        downsample_factor=2,
    )
    save(folder, Lfm2VlForConditionalGeneration(config), processor)
