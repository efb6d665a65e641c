"""DeepSeek-VL."""

from pathlib import Path

from transformers import (
    DeepseekVLConfig,
    DeepseekVLForConditionalGeneration,
    DeepseekVLImageProcessor,
    DeepseekVLProcessor,
)

from .common import byte_level_tokenizer, llama, save, siglip, spare
from .generic import SIZE

TEMPLATE = """{{ bos_token }}{% for message in messages %}\
{% if message['role'] == 'system' %}{{ message['content'][0]['text'] + '\n\n' }}{% else %}\
{{ message['role'].capitalize() + ': ' }}\
{% for part in message['content'] %}\
{{ '<image_placeholder>' if part['type'] == 'image' else part['text'] }}{% endfor %}\
{{ '\n\n' if message['role'] == 'user' else eos_token }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"""


def deepseek_vl(folder: Path) -> None:
    """16 visual tokens per image."""
    begin, end = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
    tokenizer = byte_level_tokenizer(
        [begin, end, "<｜▁pad▁｜>", "<image_placeholder>"],
        bos=begin,
        bos_token=begin,
        eos_token=end,
        pad_token="<｜▁pad▁｜>",
        image_token="<image_placeholder>",
    )
    processor = DeepseekVLProcessor(
        DeepseekVLImageProcessor(size=SIZE, min_size=8), tokenizer, chat_template=TEMPLATE, num_image_tokens=16
    )
    config = DeepseekVLConfig(
        text_config=llama(spare(tokenizer), tokenizer),
        vision_config=siglip(8),
        image_token_id=processor.image_token_id,
        tie_word_embeddings=False,
    )
    save(folder, DeepseekVLForConditionalGeneration(config), processor)
