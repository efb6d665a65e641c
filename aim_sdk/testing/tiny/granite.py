"""Granite Docling."""

from pathlib import Path

from transformers import (
    GraniteDoclingConfig,
    GraniteDoclingForConditionalGeneration,
    GraniteDoclingImageProcessor,
    GraniteDoclingProcessor,
    GraniteDoclingTextConfig,
    GraniteDoclingVisionConfig,
)

from .common import HIDDEN, IMAGE, byte_level_tokenizer, save, spare, text_options, tower_options

TEMPLATE = """{% for message in messages %}{{ '<|start_of_role|>' + message['role'] + '<|end_of_role|>' }}\
{% for part in message['content'] %}{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}\
{{ '<|end_of_text|>\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|start_of_role|>assistant<|end_of_role|>' }}{% endif %}"""


def granite_docling(folder: Path) -> None:
    """4 visual tokens a tile, up to 4 tiles and a thumbnail; a mark stands after a split image alone."""
    tiles = [f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)]
    roles = ["<|start_of_role|>", "<|end_of_role|>"]
    tokenizer = byte_level_tokenizer(
        ["<|pad|>", "<|end_of_text|>", *roles, "<image>", "<fake_token_around_image>", "<global-img>", *tiles],
        bos_token="<|end_of_text|>",
        eos_token="<|end_of_text|>",
        pad_token="<|pad|>",
    )
    processor = GraniteDoclingProcessor(
        GraniteDoclingImageProcessor(size={"height": IMAGE, "width": IMAGE}, max_patches=4),
        tokenizer,
        image_seq_len=4,
        chat_template=TEMPLATE,
    )
    tower = GraniteDoclingVisionConfig(
        **tower_options(8), out_hidden_size=HIDDEN, scale_factor=2, deepstack_visual_indexes=[0, 1]
    )
    config = GraniteDoclingConfig(
        text_config=GraniteDoclingTextConfig(
            **text_options(spare(tokenizer), tokenizer),
            embedding_multiplier=2.0,
            logits_scaling=2.0,
            residual_multiplier=0.7,
            attention_multiplier=0.25,
        ),
        vision_config=tower,
        image_token_id=processor.image_token_id,
        pad_token_id=tokenizer.pad_token_id,
        density_router_hidden_size=HIDDEN,
    )
    save(folder, GraniteDoclingForConditionalGeneration(config), processor)
