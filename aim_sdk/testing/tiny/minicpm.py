"""MiniCPM-V 4.6 and 4.7, and MiniCPM-OCR."""

from pathlib import Path
from typing import Any

from transformers import (
    MiniCPMOcrConfig,
    MiniCPMOcrForConditionalGeneration,
    MiniCPMOcrImageProcessor,
    MiniCPMOcrProcessor,
    MiniCPMOcrVideoProcessor,
    MiniCPMV4_6Config,
    MiniCPMV4_6ForConditionalGeneration,
    MiniCPMV4_6ImageProcessor,
    MiniCPMV4_6Processor,
    MiniCPMV4_6VideoProcessor,
    MiniCPMV4_7Config,
    MiniCPMV4_7ForConditionalGeneration,
    MiniCPMV4_7Processor,
    PreTrainedTokenizerBase,
    Qwen3_5Tokenizer,
)

from .common import HIDDEN, IMAGE, WINDOW, byte_level_bpe, save
from .qwen import SPECIAL, THINKING, linear_text

MARKS = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "image_start_token": "<image>",
    "image_end_token": "</image>",
    "slice_start_token": "<slice>",
    "slice_end_token": "</slice>",
    "image_id_start_token": "<image_id>",
    "image_id_end_token": "</image_id>",
}
CORNERS = ("image_start", "image_end", "slice_start", "slice_end")

TEMPLATE = """{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}\
{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}\
{{ '<|image_pad|>' if part['type'] == 'image' else part['text'] }}{% endfor %}{% endif %}\
{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""

PATCH = 4
SIDE = 48  # of a tile, in pixels
TILES: dict[str, Any] = {"patch_size": PATCH, "scale_resolution": SIDE, "max_slice_nums": 4}


def _tokenizer() -> PreTrainedTokenizerBase:
    vocab, merges = byte_level_bpe()
    tokenizer = Qwen3_5Tokenizer(
        vocab=dict(vocab),
        merges=list(merges),
        unk_token=None,
        eos_token="<|im_end|>",
        extra_special_tokens=SPECIAL,
        model_max_length=WINDOW,
        **MARKS,
    )
    tokenizer.add_tokens(["<think>", "</think>"])
    return tokenizer


def _options(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """One layer of linear attention, one of full attention; the tower merges four patches after its first layer."""
    tower = {"hidden_size": HIDDEN, "intermediate_size": 2 * HIDDEN, "num_hidden_layers": 2, "num_attention_heads": 4}
    return {
        "text_config": linear_text(tokenizer) | {"model_type": "qwen3_5_text"},
        "vision_config": tower | {"image_size": SIDE, "patch_size": PATCH},
        "insert_layer_id": 0,
        "image_token_id": tokenizer.image_token_id,
        "video_token_id": tokenizer.video_token_id,
    }


def minicpm_v4_6(folder: Path) -> None:
    """About 9 visual tokens a tile, up to 4 tiles after a thumbnail; each image begins with its number."""
    tokenizer = _tokenizer()
    processor = MiniCPMV4_6Processor(
        MiniCPMV4_6ImageProcessor(**TILES),
        MiniCPMV4_6VideoProcessor(**TILES),
        tokenizer,
        chat_template=TEMPLATE + THINKING,
    )
    model = MiniCPMV4_6ForConditionalGeneration(MiniCPMV4_6Config(**_options(tokenizer)))
    save(folder, model, processor)


def minicpm_v4_7(folder: Path) -> None:
    """MiniCPM-V 4.6 whose tiles have three-dimensional positions on one canvas."""
    tokenizer = _tokenizer()
    processor = MiniCPMV4_7Processor(
        MiniCPMV4_6ImageProcessor(**TILES),
        MiniCPMV4_6VideoProcessor(**TILES),
        tokenizer,
        chat_template=TEMPLATE + THINKING,
    )
    marks = {f"{name}_id": tokenizer.convert_tokens_to_ids(MARKS[f"{name}_token"]) for name in CORNERS}
    config = MiniCPMV4_7Config(
        **_options(tokenizer), **marks, newline_id=tokenizer("\n", add_special_tokens=False)["input_ids"][0]
    )
    save(folder, MiniCPMV4_7ForConditionalGeneration(config), processor)


def minicpm_ocr(folder: Path) -> None:
    """MiniCPM-V 4.6 with tied embeddings and four times as many visual tokens: about 16 for 32 pixels square."""
    tokenizer = _tokenizer()
    tiles = TILES | {"scale_resolution": IMAGE, "max_slice_nums": 3}
    processor = MiniCPMOcrProcessor(
        MiniCPMOcrImageProcessor(**tiles),
        MiniCPMOcrVideoProcessor(**tiles),
        tokenizer,
        chat_template=TEMPLATE,
    )
    save(folder, MiniCPMOcrForConditionalGeneration(MiniCPMOcrConfig(**_options(tokenizer))), processor)
