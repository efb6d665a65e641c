"""Mistral 3 with a Pixtral tower."""

from pathlib import Path

from transformers import (
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PixtralImageProcessor,
    PixtralProcessor,
    PixtralVisionConfig,
)

from .common import IMAGE, byte_level_tokenizer, mistral, save, tower_options

TEMPLATE = """{{ bos_token }}{% for message in messages %}\
{% if message['role'] == 'system' %}{{ '[SYSTEM_PROMPT]' + message['content'][0]['text'] + '[/SYSTEM_PROMPT]' }}\
{% elif message['role'] == 'user' %}{{ '[INST]' }}\
{% for part in message['content'] %}{{ '[IMG]' if part['type'] == 'image' else part['text'] }}{% endfor %}\
{{ '[/INST]' }}\
{% else %}{{ message['content'][0]['text'] + eos_token }}{% endif %}{% endfor %}"""


def mistral3(folder: Path) -> None:
    """A visual token for 16 pixels square, up to 2 lines of 2, each closed by a token of its own."""
    special = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]"]
    tokenizer = byte_level_tokenizer(
        [*special, "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", *(f"<SPECIAL_{i}>" for i in range(4))],
        bos="<s>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
    )
    processor = PixtralProcessor(
        PixtralImageProcessor(size={"longest_edge": IMAGE}, patch_size={"height": 16, "width": 16}),
        tokenizer,
        patch_size=8,
        spatial_merge_size=2,
        chat_template=TEMPLATE,
    )
    config = Mistral3Config(
        vision_config=PixtralVisionConfig(**tower_options(8)),
        text_config=mistral(len(tokenizer), tokenizer),
        image_token_index=processor.image_token_id,
        spatial_merge_size=2,
        tie_word_embeddings=False,
    )
    save(folder, Mistral3ForConditionalGeneration(config), processor)
