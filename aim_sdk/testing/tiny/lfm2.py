"""LFM2-VL and LFM3-VL."""

from pathlib import Path

from transformers import (
    Lfm2Config,
    Lfm2VlConfig,
    Lfm2VlForConditionalGeneration,
    Lfm2VlImageProcessor,
    Lfm2VlProcessor,
    Lfm3Config,
    Lfm3VlConfig,
    Lfm3VlForConditionalGeneration,
    Lfm3VlProcessor,
    Lfm3VlVisionConfig,
    Qwen2VLImageProcessor,
    Qwen3VLVideoProcessor,
    Siglip2VisionConfig,
)

from .common import HIDDEN, byte_level_tokenizer, save, spare, text_options
from .qwen import PATCHES, SIZE

TEMPLATE = """{{ bos_token }}{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}\
{% for part in message['content'] %}{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}\
{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""


def lfm2_vl(folder: Path) -> None:
    """Up to 8 visual tokens; 4 for each of two tiles and a thumbnail if it is large; a convolution, then attention."""
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
        tile_size=32, encoder_patch_size=8, min_image_tokens=2, max_image_tokens=8, max_tiles=2, downsample_factor=2
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


def lfm3_vl(folder: Path) -> None:
    """A visual token for 16 pixels square, between two marks; a convolution, then windowed and full attention."""
    special = ["<|pad|>", "<|startoftext|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    images = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer = byte_level_tokenizer(
        [*special, *images],
        bos="<|startoftext|>",
        bos_token="<|startoftext|>",
        eos_token="<|im_end|>",
        pad_token="<|pad|>",
    )
    template = TEMPLATE.replace("<image>", "<|vision_start|><|image_pad|><|vision_end|>")
    processor = Lfm3VlProcessor(
        Qwen2VLImageProcessor(size=SIZE, **PATCHES),
        tokenizer,
        Qwen3VLVideoProcessor(size=SIZE, **PATCHES),
        chat_template=template,
    )
    text = Lfm3Config(
        **text_options(spare(tokenizer), tokenizer) | {"num_hidden_layers": 3},
        layer_types=["conv", "sliding_attention", "full_attention"],
        head_dim=8,
        sliding_window=64,
    )
    tower = Lfm3VlVisionConfig(
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        layer_types=["conv", "full_attention"],
        patch_size=8,
    )
    names = {"image": "image_pad", "video": "video_pad", "vision_start": "vision_start", "vision_end": "vision_end"}
    config = Lfm3VlConfig(
        vision_config=tower,
        text_config=text,
        projector_hidden_size=HIDDEN,
        **{f"{role}_token_id": tokenizer.convert_tokens_to_ids(f"<|{name}|>") for role, name in names.items()},
    )
    save(folder, Lfm3VlForConditionalGeneration(config), processor)
