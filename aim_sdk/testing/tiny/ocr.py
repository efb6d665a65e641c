"""LightOnOCR and PaddleOCR-VL."""

from pathlib import Path

from transformers import (
    LightOnOcrConfig,
    LightOnOcrForConditionalGeneration,
    LightOnOcrProcessor,
    PaddleOCRTextConfig,
    PaddleOCRVisionConfig,
    PaddleOCRVLConfig,
    PaddleOCRVLForConditionalGeneration,
    PaddleOCRVLImageProcessor,
    PaddleOCRVLProcessor,
    PixtralImageProcessor,
    PixtralVisionConfig,
    Qwen2Tokenizer,
    Qwen3Config,
)

from .common import (
    IMAGE,
    WINDOW,
    byte_level_bpe,
    metaspace_tokenizer,
    save,
    spare,
    text_options,
    tower_options,
)
from .qwen import SIZE, SPECIAL

LIGHTON = """{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system<|im_end|>\n' }}{% endif %}\
{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}\
{% for part in message['content'] %}{{ '<|image_pad|>' if part['type'] == 'image' else part['text'] }}{% endfor %}\
{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""

# Version 1.5's; version 1.0 writes a blank in place of the line end after `Assistant:`.
PADDLE = """{{ '<|begin_of_sentence|>' }}{% for message in messages %}\
{{ {'system': '', 'user': 'User: ', 'assistant': 'Assistant:\n'}[message['role']] }}\
{% for part in message['content'] %}\
{{ '<|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>' if part['type'] == 'image' else part['text'] }}\
{% endfor %}{{ '</s>' if message['role'] == 'assistant' else '\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ 'Assistant:\n' }}{% endif %}"""


def lighton_ocr(folder: Path) -> None:
    """A visual token for 16 pixels square, up to 2 lines of 2, without marks."""
    vocab, merges = byte_level_bpe()
    tokenizer = Qwen2Tokenizer(
        vocab=dict(vocab),
        merges=list(merges),
        unk_token=None,
        eos_token="<|im_end|>",
        extra_special_tokens=SPECIAL,
        image_token="<|image_pad|>",
        image_break_token="<|vision_pad|>",
        image_end_token="<|vision_end|>",
        model_max_length=WINDOW,
    )
    processor = LightOnOcrProcessor(
        PixtralImageProcessor(size={"longest_edge": IMAGE}, patch_size={"height": 16, "width": 16}),
        tokenizer,
        patch_size=8,
        spatial_merge_size=2,
        chat_template=LIGHTON,
    )
    config = LightOnOcrConfig(
        vision_config=PixtralVisionConfig(**tower_options(8)),
        text_config=Qwen3Config(**text_options(spare(tokenizer), tokenizer), head_dim=8),
        image_token_id=processor.image_token_id,
        spatial_merge_size=2,
    )
    save(folder, LightOnOcrForConditionalGeneration(config), processor)


def paddleocr_vl(folder: Path) -> None:
    """A visual token for 16 pixels square, between two marks; three-dimensional positions."""
    marks = ["<|begin_of_sentence|>", "<|IMAGE_PLACEHOLDER|>", "<|IMAGE_START|>", "<|IMAGE_END|>", "<|video_pad|>"]
    tokenizer = metaspace_tokenizer(
        *("<unk>", "<s>", "</s>", *marks),
        prepend="never",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<unk>",
        cls_token="<|begin_of_sentence|>",
        image_token="<|IMAGE_PLACEHOLDER|>",
    )
    processor = PaddleOCRVLProcessor(
        PaddleOCRVLImageProcessor(size=SIZE, patch_size=8), tokenizer, chat_template=PADDLE
    )
    rope = {"rope_type": "default", "rope_theta": 5e5, "mrope_section": [2, 1, 1]}
    names = {"image": "IMAGE_PLACEHOLDER", "video": "video_pad", "vision_start": "IMAGE_START"}
    config = PaddleOCRVLConfig(
        text_config=PaddleOCRTextConfig(**text_options(spare(tokenizer), tokenizer), head_dim=8, rope_parameters=rope),
        vision_config=PaddleOCRVisionConfig(**tower_options(8)),
        vision_end_token_id=tokenizer.convert_tokens_to_ids("<|IMAGE_END|>"),
        **{f"{role}_token_id": tokenizer.convert_tokens_to_ids(f"<|{name}|>") for role, name in names.items()},
    )
    save(folder, PaddleOCRVLForConditionalGeneration(config), processor)
