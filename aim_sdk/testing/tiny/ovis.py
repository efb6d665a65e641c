"""Ovis 2."""

from pathlib import Path

from transformers import (
    Ovis2Config,
    Ovis2ForConditionalGeneration,
    Ovis2ImageProcessor,
    Ovis2Processor,
    Ovis2VisionConfig,
    Qwen2Tokenizer,
)

from .common import HIDDEN, WINDOW, byte_level_bpe, qwen2, save, spare, tower_options
from .generic import SIZE

TEMPLATE = """{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}\
{% for part in message['content'] %}{{ '<image>\n' if part['type'] == 'image' else part['text'] }}{% endfor %}\
{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""


def ovis2(folder: Path) -> None:
    """4 visual tokens a tile, mixtures of a visual vocabulary's rows; the marks around tiles are rows of it too."""
    vocab, merges = byte_level_bpe()
    marks = [f"<IMG_{name}>" for name in ("START", "GRID", "COL", "ROW", "END")]
    tokenizer = Qwen2Tokenizer(
        vocab=dict(vocab),
        merges=list(merges),
        unk_token=None,
        eos_token="<|im_end|>",
        extra_special_tokens=["<|im_start|>", "<IMG_ATOM>", *marks, "<image>"],
        model_max_length=WINDOW,
    )
    processor = Ovis2Processor(
        Ovis2ImageProcessor(size=SIZE, crop_to_patches=True, max_patches=2),
        tokenizer,
        chat_template=TEMPLATE,
        image_seq_length=4,
    )
    rows = spare(tokenizer)
    config = Ovis2Config(
        vision_config=Ovis2VisionConfig(**tower_options(8), vocab_size=69, hidden_stride=2),
        text_config=qwen2(rows, tokenizer, tied=True),
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_ATOM>"),
        visual_indicator_token_ids=tokenizer.convert_tokens_to_ids(marks),
        vocab_size=rows,
        hidden_size=HIDDEN,
    )
    save(folder, Ovis2ForConditionalGeneration(config), processor)
