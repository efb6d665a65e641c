"""Cosmos 3: Edge and Omni."""

from pathlib import Path

from transformers import (
    Cosmos3EdgeConfig,
    Cosmos3EdgeForConditionalGeneration,
    Cosmos3EdgeImageProcessor,
    Cosmos3EdgeProcessor,
    Cosmos3EdgeVideoProcessor,
    Cosmos3OmniConfig,
    Cosmos3OmniForConditionalGeneration,
)

from .common import HIDDEN, byte_level_tokenizer, save, spare, text_options, tower_options
from .qwen import SIZE, TURNS, qwen3_vl_parts

# A system turn, if only an empty one; no thought is an empty one before the answer.
EDGE = """{% set given = messages[0]['role'] == 'system' %}\
{{ '<|im_start|>system\n' + (messages[0]['content'][0]['text'] if given else '') + '<|im_end|>\n' }}\
{% set lead = '<|im_start|>assistant\n<think></think>' %}\
{% for message in messages[given | int :] %}\
{{ lead if message['role'] == 'assistant' else '<|im_start|>' + message['role'] + '\n' }}\
{% for part in message['content'] %}\
{{ '<|vision_start|><|image_pad|><|vision_end|>' if part['type'] == 'image' else part['text'] }}\
{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}\
{{ '<|im_start|>assistant\n<think>\n' if enable_thinking is not defined or enable_thinking else lead }}{% endif %}"""


def cosmos3_edge(folder: Path) -> None:
    """A visual token for 16 pixels square, between two marks; three-dimensional positions."""
    marks = ["<|im_start|>", "<|im_end|>", "<think>", "</think>"]
    media = {"video": "video_pad", "image": "image_pad", "vision_start": "vision_start", "vision_end": "vision_end"}
    tokenizer = byte_level_tokenizer(
        ["<unk>", "<s>", "</s>", *marks, *(f"<|{name}|>" for name in media.values())],
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
    )
    patches = {"patch_size": 8, "temporal_patch_size": 1, "merge_size": 2}
    processor = Cosmos3EdgeProcessor(
        Cosmos3EdgeImageProcessor(size=SIZE, **patches),
        tokenizer,
        Cosmos3EdgeVideoProcessor(size=SIZE, **patches),
        chat_template=EDGE,
    )
    rope = {"rope_type": "default", "rope_theta": 1e8, "mrope_section": [2, 1, 1]}
    tower = {name: value for name, value in tower_options(8).items() if name != "image_size"}
    config = Cosmos3EdgeConfig(
        text_config=text_options(spare(tokenizer), tokenizer) | {"head_dim": 8, "rope_parameters": rope},
        vision_config=tower | {"num_patches": 16, "spatial_merge_size": 2},
        projector_hidden_size=2 * HIDDEN,
        **{f"{role}_token_id": tokenizer.convert_tokens_to_ids(f"<|{name}|>") for role, name in media.items()},
    )
    save(folder, Cosmos3EdgeForConditionalGeneration(config), processor)


def cosmos3_omni(folder: Path) -> None:
    """The part that reads and writes text: Qwen3-VL under another name."""
    parts, processor = qwen3_vl_parts(TURNS)
    save(folder, Cosmos3OmniForConditionalGeneration(Cosmos3OmniConfig(**parts)), processor)
