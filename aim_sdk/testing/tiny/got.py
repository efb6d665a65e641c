"""GOT-OCR 2."""

from pathlib import Path

from transformers import (
    GotOcr2Config,
    GotOcr2ForConditionalGeneration,
    GotOcr2ImageProcessor,
    GotOcr2Processor,
    GotOcr2VisionConfig,
)

from .common import byte_level_tokenizer, qwen2, save

SIDE, CHANNELS, WINDOW = 128, 16, 8


def _tower() -> GotOcr2VisionConfig:
    """64 patches square, in windows alone: a layer that attends to all of them costs 4096 x 4096 scores a head."""
    return GotOcr2VisionConfig(
        hidden_size=CHANNELS,
        output_channels=CHANNELS,
        mlp_dim=2 * CHANNELS,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=2,
        window_size=WINDOW,
        global_attn_indexes=[],
    )


def got_ocr2(folder: Path) -> None:
    """256 visual tokens per image, because the processor saves no other number; no template, no row to spare."""
    end = "<|endoftext|>"
    extra = [f"<|extra_{number}|>" for number in range(4)]
    tokenizer = byte_level_tokenizer(
        [end, "<|im_start|>", "<|im_end|>", *extra, "<img>", "</img>", "<imgpad>"],
        bos_token=end,
        eos_token=end,
        pad_token=end,
    )
    processor = GotOcr2Processor(GotOcr2ImageProcessor(size={"height": SIDE, "width": SIDE}), tokenizer)
    config = GotOcr2Config(
        vision_config=_tower(),
        text_config=qwen2(len(tokenizer), tokenizer, tied=True),
        image_token_index=processor.image_token_id,
        image_seq_length=processor.num_image_tokens,
    )
    save(folder, GotOcr2ForConditionalGeneration(config), processor)
