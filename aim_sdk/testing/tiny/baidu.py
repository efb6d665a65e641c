"""Qianfan-OCR and PP-Chart2Table."""

from pathlib import Path

from transformers import (
    GotOcr2ForConditionalGeneration,
    GotOcr2ImageProcessor,
    PPChart2TableConfig,
    PPChart2TableImageProcessor,
    PPChart2TableProcessor,
    PPChart2TableVisionConfig,
    QianfanOCRConfig,
    QianfanOCRForConditionalGeneration,
    QianfanOCRProcessor,
    QianfanOCRVisionConfig,
    Qwen3Config,
)

from .common import HIDDEN, byte_level_tokenizer, qwen2, save, spare, text_options, tower_options
from .generic import CHATML, SIZE

SIDE, TOKENS = 64, 16  # of a picture of PP-Chart2Table
CHART = """{{ '<|im_start|>system\nYou should follow the instructions carefully and explain your answers in detail.' }}\
{{ '<|im_end|>' }}{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}\
{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ '<img>' + '<imgpad>' * TOKENS + '</img>\n' }}\
{% else %}{{ part['text'] }}{% endif %}{% endfor %}{{ '<|im_end|>' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}""".replace("TOKENS", str(TOKENS))


def qianfan_ocr(folder: Path) -> None:
    """4 visual tokens a tile, up to four tiles and a thumbnail; its mark of an image is no token of its own."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>"]
    spatial = ["<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>"]
    tokenizer = byte_level_tokenizer(
        [*special, *spatial],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
    )
    processor = QianfanOCRProcessor(
        GotOcr2ImageProcessor(size=SIZE, crop_to_patches=True, max_patches=4),
        tokenizer,
        image_seq_length=4,
        chat_template=CHATML.replace("<IMG_CONTEXT>", "<image>"),
    )
    config = QianfanOCRConfig(
        vision_config=QianfanOCRVisionConfig(**tower_options(8)),
        text_config=Qwen3Config(**text_options(spare(tokenizer), tokenizer), head_dim=8),
        image_token_id=processor.image_token_id,
        image_seq_length=4,
    )
    save(folder, QianfanOCRForConditionalGeneration(config), processor)


def pp_chart2table(folder: Path) -> None:
    """16 visual tokens per image, which the chat template writes: the processor expands nothing."""
    end = "<|endoftext|>"
    tokenizer = byte_level_tokenizer(
        [end, "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<imgpad>"],
        bos_token=end,
        eos_token=end,
        pad_token=end,
    )
    processor = PPChart2TableProcessor(
        PPChart2TableImageProcessor(size={"height": SIDE, "width": SIDE}), tokenizer, chat_template=CHART
    )
    tower = PPChart2TableVisionConfig(
        hidden_size=HIDDEN // 2,
        output_channels=HIDDEN // 2,
        mlp_dim=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=4,
        window_size=8,
        global_attn_indexes=[1],
    )
    config = PPChart2TableConfig(
        vision_config=tower,
        text_config=qwen2(spare(tokenizer), tokenizer, tied=True),
        image_token_index=tokenizer.convert_tokens_to_ids("<imgpad>"),
        image_seq_length=TOKENS,
    )
    save(folder, GotOcr2ForConditionalGeneration(config), processor, eos="<|im_end|>")
