"""Emu 3, which can draw and is used to read here."""

from pathlib import Path

from transformers import (
    Emu3Config,
    Emu3ForConditionalGeneration,
    Emu3ImageProcessor,
    Emu3Processor,
    Emu3TextConfig,
    Emu3VQVAEConfig,
)

from .common import IMAGE, byte_level_tokenizer, save, spare, text_options

TEMPLATE = """{% for message in messages %}\
{{ '' if message['role'] == 'system' else message['role'] | upper + ': ' }}\
{% for part in message['content'] %}{{ '<image>' if part['type'] == 'image' else part['text'] + ' ' }}{% endfor %}\
{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"""


def emu3(folder: Path) -> None:
    """A visual token for 8 pixels square and one for each line's end, 20 to 55, after the image's size in digits."""
    codes = [f"<|visual token {code:06d}|>" for code in range(64)]
    extra = [f"<|extra_{number}|>" for number in (200, 201, 203, 204)]
    marks = ["<|image start|>", "<|image end|>", "<|image token|>", "<image>"]
    tokenizer = byte_level_tokenizer(
        ["<|endoftext|>", *extra, *marks, *codes],
        bos_token="<|extra_203|>",
        eos_token="<|extra_204|>",
        pad_token="<|endoftext|>",
        image_token="<image>",
        boi_token="<|image start|>",
        eoi_token="<|image end|>",
        image_wrapper_token="<|image token|>",
        eof_token="<|extra_201|>",
    )
    images = Emu3ImageProcessor(min_pixels=IMAGE * IMAGE, max_pixels=3 * IMAGE * IMAGE)
    processor = Emu3Processor(images, tokenizer, chat_template=TEMPLATE)
    quantiser = Emu3VQVAEConfig(
        codebook_size=len(codes), base_channels=32, channel_multiplier=[1, 1, 1, 1], num_res_blocks=1, hidden_size=32
    )
    names = ["<image>", "<|extra_200|>", *codes]
    config = Emu3Config(
        text_config=Emu3TextConfig(**text_options(spare(tokenizer), tokenizer)),
        vq_config=quantiser,
        vocabulary_map=dict(zip(names, tokenizer.convert_tokens_to_ids(names), strict=True)),
    )
    save(folder, Emu3ForConditionalGeneration(config), processor)
