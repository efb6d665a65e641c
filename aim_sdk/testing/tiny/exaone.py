"""EXAONE 4.5."""

from pathlib import Path

from transformers import (
    Exaone4_5_Config,
    Exaone4_5_ForConditionalGeneration,
    Exaone4_5_Processor,
    Exaone4_5_VisionConfig,
    Exaone4Config,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from .common import HIDDEN, byte_level_tokenizer, save, spare, text_options
from .qwen import PATCH, PATCHES, SIZE

TEMPLATE = """{% for message in messages %}{{ '<|' + message['role'] + '|>\n' }}\
{% for part in message['content'] %}\
{{ '<vision><|image_pad|></vision>' if part['type'] == 'image' else part['text'] }}{% endfor %}\
{{ '<|endofturn|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"""


def exaone4_5(folder: Path) -> None:
    """A visual token for 16 pixels square, between two marks; a windowed layer and a full one without positions."""
    roles = ["<|system|>", "<|user|>", "<|assistant|>", "<|endofturn|>"]
    tokenizer = byte_level_tokenizer(
        ["[PAD]", "[BOS]", "[EOS]", *roles, "<vision>", "</vision>", "<|image_pad|>", "<|video_pad|>"],
        bos_token="[BOS]",
        eos_token="<|endofturn|>",
        pad_token="[PAD]",
    )
    processor = Exaone4_5_Processor(
        Qwen2VLImageProcessor(size=SIZE, **PATCHES),
        tokenizer,
        Qwen2VLVideoProcessor(size=SIZE, **PATCHES),
        chat_template=TEMPLATE,
    )
    text = Exaone4Config(
        **text_options(spare(tokenizer), tokenizer),
        sliding_window=64,
        layer_types=["sliding_attention", "full_attention"],
    )
    tower = Exaone4_5_VisionConfig(
        depth=2,
        num_heads=2,
        num_key_value_heads=1,
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        out_hidden_size=HIDDEN,
        patch_size=PATCH,
        window_size=4 * PATCH,
        fullatt_block_indexes=[1],
    )
    config = Exaone4_5_Config(
        text_config=text,
        vision_config=tower,
        image_token_id=processor.image_token_id,
        video_token_id=processor.video_token_id,
    )
    save(folder, Exaone4_5_ForConditionalGeneration(config), processor)
