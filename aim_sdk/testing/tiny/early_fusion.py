"""Chameleon, whose image is a row of discrete tokens, and Janus, which can draw and is used to read here."""

from pathlib import Path
from typing import Any

from transformers import (
    ChameleonConfig,
    ChameleonForConditionalGeneration,
    ChameleonImageProcessor,
    ChameleonProcessor,
    ChameleonVQVAEConfig,
    JanusConfig,
    JanusForConditionalGeneration,
    JanusImageProcessor,
    JanusProcessor,
    JanusVisionConfig,
    JanusVQVAEConfig,
)

from .common import HIDDEN, IMAGE, byte_level_tokenizer, llama, save, spare, text_options

JANUS = """{% for message in messages %}{% if message['role'] == 'system' %}\
{{ message['content'][0]['text'] + '\n\n' }}{% else %}{{ '<|' + message['role'].capitalize() + '|>: ' }}\
{% for part in message['content'] %}\
{{ '<image_placeholder>\n' if part['type'] == 'image' else part['text'] }}{% endfor %}\
{{ eos_token if message['role'] == 'assistant' else '\n\n' }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ '<|Assistant|>:' }}{% endif %}"""

QUANTISER: dict[str, Any] = {"base_channels": 32, "latent_channels": 32, "num_res_blocks": 1}


def _codes(count: int) -> list[str]:
    """Chameleon's names of its image codes: the digits of a number as letters."""
    return [f"IMGIMG{''.join(chr(ord('A') + int(digit)) for digit in str(code))}Z" for code in range(count)]


def chameleon(folder: Path) -> None:
    """16 visual tokens per image, each one of 64 codes; a mark after every prompt; no chat template."""
    codes = _codes(64)
    tokenizer = byte_level_tokenizer(
        ["<s>", "<pad>", "</s>", "<unk>", "<racm3:break>", "<eoss>", "<image>", "<reserved08706>", *codes],
        bos="<s>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        sep_token="<reserved08706>",
        image_token="<image>",
        boi_token="<racm3:break>",
        eoi_token="<eoss>",
    )
    images = ChameleonImageProcessor(size={"shortest_edge": IMAGE}, crop_size={"height": IMAGE, "width": IMAGE})
    config = ChameleonConfig(
        **text_options(spare(tokenizer), tokenizer),
        vq_config=ChameleonVQVAEConfig(
            **QUANTISER, embed_dim=8, num_embeddings=len(codes), resolution=IMAGE, channel_multiplier=[1, 1, 1, 1]
        ),
        vocabulary_map={name: tokenizer.convert_tokens_to_ids(name) for name in ("<image>", *codes)},
    )
    processor = ChameleonProcessor(images, tokenizer, image_seq_length=16)
    save(folder, ChameleonForConditionalGeneration(config), processor)


def janus(folder: Path) -> None:
    """16 visual tokens per image; the codes and the head that draw are there and never used."""
    bos, eos, pad = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"
    tokenizer = byte_level_tokenizer(
        [bos, eos, pad, "<image_placeholder>", "<begin_of_image>", "<end_of_image>"],
        bos=bos,
        bos_token=bos,
        eos_token=eos,
        pad_token=pad,
        image_token="<image_placeholder>",
        boi_token="<begin_of_image>",
        eoi_token="<end_of_image>",
    )
    images = JanusImageProcessor(size={"height": IMAGE, "width": IMAGE}, min_size=8)
    processor = JanusProcessor(images, tokenizer, chat_template=JANUS, num_image_tokens=16)
    config = JanusConfig(
        text_config=llama(spare(tokenizer), tokenizer),
        vision_config=JanusVisionConfig(
            hidden_size=HIDDEN,
            num_hidden_layers=1,
            num_attention_heads=4,
            image_size=IMAGE,
            patch_size=8,
            mlp_ratio=1.0,
            projection_dim=HIDDEN,
            num_image_tokens=16,
        ),
        vq_config=JanusVQVAEConfig(
            **QUANTISER,
            num_embeddings=8,
            channel_multiplier=[1],
            projection_dim=HIDDEN,
            image_token_embed_dim=HIDDEN,
        ),
        image_token_id=tokenizer.image_token_id,
        tie_word_embeddings=False,
    )
    save(folder, JanusForConditionalGeneration(config), processor)
