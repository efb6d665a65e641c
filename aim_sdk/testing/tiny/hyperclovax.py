"""HyperCLOVA X SEED Think (with images)."""

from pathlib import Path

from transformers import (
    GPT2Tokenizer,
    HyperCLOVAXConfig,
    HyperCLOVAXVisionV2Config,
    HyperCLOVAXVisionV2ForConditionalGeneration,
    HyperCLOVAXVisionV2Processor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from .common import HIDDEN, WINDOW, byte_level_bpe, save, spare, text_options
from .qwen import PATCH, PATCHES, SIZE

# It numbers the images of a conversation.
TEMPLATE = """{% set images = namespace(count=0) %}{% for message in messages %}\
{{ '<|im_start|>' + message['role'] + '\n' }}{% for part in message['content'] %}{% if part['type'] == 'image' %}\
{{ '<|mime_start|>{"id": "image_%02d", "type": "image/jpeg", "filename": "a.jpg"}<|mime_end|>\n' % images.count }}\
{{ '<|image_start|><|IMAGE_PAD|><|image_end|>\n' }}{% set images.count = images.count + 1 %}\
{% else %}{{ part['text'] }}{% endif %}{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}\
{{ '<think>\n' if thinking is not defined or thinking else '<think>\n\n</think>\n\n' }}{% endif %}"""


def hyperclovax_vision_v2(folder: Path) -> None:
    """A visual token for 16 pixels square, between two marks and after a line of JSON; embeddings, attention, layers
    and logits are scaled, with norms before and after each layer."""
    names = ["mime_start", "mime_end", "image_start", "IMAGE_PAD", "image_end", "video_start", "VIDEO_PAD", "video_end"]
    vocab, merges = byte_level_bpe()
    tokenizer = GPT2Tokenizer(
        vocab=dict(vocab),
        merges=list(merges),
        unk_token="<|endoftext|>",
        bos_token="<|endoftext|>",
        eos_token="<|im_end|>",
        pad_token="<|pad|>",
        extra_special_tokens=["<|im_start|>", *(f"<|{name}|>" for name in names)],
        image_token="<|IMAGE_PAD|>",
        video_token="<|VIDEO_PAD|>",
        model_max_length=WINDOW,
    )
    tokenizer.add_tokens(["<think>", "</think>"])
    processor = HyperCLOVAXVisionV2Processor(
        Qwen2VLImageProcessor(size=SIZE, **PATCHES),
        tokenizer,
        Qwen2VLVideoProcessor(size=SIZE, **PATCHES),
        chat_template=TEMPLATE,
    )
    text = HyperCLOVAXConfig(
        **text_options(spare(tokenizer), tokenizer),
        embedding_multiplier=10.0,
        attention_multiplier=1 / 8,
        residual_multiplier=0.5,
        logits_scaling=1 / 8,
    )
    tower = {
        "model_type": "qwen2_5_vl_vision",
        **{"depth": 2, "num_heads": 2, "hidden_size": HIDDEN, "intermediate_size": 2 * HIDDEN},
        **{"out_hidden_size": HIDDEN, "patch_size": PATCH, "window_size": 4 * PATCH, "fullatt_block_indexes": [1]},
    }
    config = HyperCLOVAXVisionV2Config(
        text_config=text,
        vision_config=tower,
        image_token_id=processor.image_token_id,
        video_token_id=processor.video_token_id,
    )
    save(folder, HyperCLOVAXVisionV2ForConditionalGeneration(config), processor)
