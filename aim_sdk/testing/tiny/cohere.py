"""Cohere 2 Vision (Command A Vision) and Cohere Compass (North Micro Vision)."""

from pathlib import Path

from transformers import (
    Cohere2Config,
    Cohere2VisionConfig,
    Cohere2VisionForConditionalGeneration,
    Cohere2VisionImageProcessor,
    Cohere2VisionProcessor,
    CohereCompassConfig,
    CohereCompassForConditionalGeneration,
    CohereCompassImageProcessor,
    CohereCompassProcessor,
    CohereCompassVideoProcessor,
)

from .common import HIDDEN, IMAGE, byte_level_tokenizer, save, siglip, spare, text_options
from .generic import AYA, SIZE
from .qwen import PATCH, PATCHES
from .qwen import SIZE as PIXELS

TEMPLATE = AYA.replace("<image>", "<|IMG_PATCH|>")

COMPASS = """{{ bos_token }}{% for message in messages %}{{ '<|START_OF_TURN_TOKEN|>' }}\
{{ {'system': '<|SYSTEM_TOKEN|>', 'user': '<|USER_TOKEN|>', 'assistant': '<|CHATBOT_TOKEN|>'}[message['role']] }}\
{% for part in message['content'] %}\
{{ '<|VISION_START|><|IMAGE_PAD|><|VISION_END|>' if part['type'] == 'image' else part['text'] }}{% endfor %}\
{{ '<|END_OF_TURN_TOKEN|>' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %}"""

ROLES = [f"<|{role}_TOKEN|>" for role in ("SYSTEM", "USER", "CHATBOT", "START_OF_TURN", "END_OF_TURN")]


def cohere2_vision(folder: Path) -> None:
    """4 visual tokens and a line end a tile, up to two tiles and a thumbnail."""
    images = {"boi": "START_OF_IMG", "eoi": "END_OF_IMG", "img_line_break": "IMG_LINE_BREAK", "image": "IMG_PATCH"}
    tokenizer = byte_level_tokenizer(
        [
            *("<PAD>", "<UNK>", "<BOS_TOKEN>", *ROLES),
            *("<|START_RESPONSE|>", "<|END_RESPONSE|>", *(f"<|EXTRA_{i}_TOKEN|>" for i in range(4))),
            *(f"<|{name}|>" for name in images.values()),
        ],
        bos="<BOS_TOKEN>",
        bos_token="<BOS_TOKEN>",
        eos_token="<|END_OF_TURN_TOKEN|>",
        pad_token="<PAD>",
        unk_token="<UNK>",
        **{f"{role}_token": f"<|{name}|>" for role, name in images.items()},
    )
    processor = Cohere2VisionProcessor(
        Cohere2VisionImageProcessor(size=SIZE, patch_size=2, crop_to_patches=True, max_patches=2),
        tokenizer,
        chat_template=TEMPLATE,
    )
    text = Cohere2Config(
        **text_options(len(tokenizer), tokenizer),
        sliding_window=64,
        layer_types=["sliding_attention", "full_attention"],
        logit_scale=1.0,
    )
    config = Cohere2VisionConfig(
        vision_config=siglip(8),
        text_config=text,
        image_token_id=processor.image_token_id,
        alignment_intermediate_size=2 * HIDDEN,
    )
    save(folder, Cohere2VisionForConditionalGeneration(config), processor)


def cohere_compass(folder: Path) -> None:
    """A visual token for 16 pixels square, between two marks; a layer of the tower enters again above the LM's first;
    a windowed layer with three-dimensional positions and a full one without positions."""
    names = {"image": "IMAGE_PAD", "video": "VIDEO_PAD", "vision_start": "VISION_START", "vision_end": "VISION_END"}
    tokenizer = byte_level_tokenizer(
        ["<PAD>", "<UNK>", "<BOS_TOKEN>", *ROLES, *(f"<|{name}|>" for name in names.values())],
        bos="<BOS_TOKEN>",
        bos_token="<BOS_TOKEN>",
        eos_token="<|END_OF_TURN_TOKEN|>",
        pad_token="<PAD>",
        unk_token="<UNK>",
        **{f"{role}_token": f"<|{name}|>" for role, name in names.items()},
    )
    processor = CohereCompassProcessor(
        CohereCompassImageProcessor(size=PIXELS, **PATCHES),
        tokenizer,
        CohereCompassVideoProcessor(size=PIXELS, **PATCHES),
        chat_template=COMPASS,
    )
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
    layers = {"sliding_window": 64, "layer_types": ["sliding_attention", "full_attention"], "logit_scale": 1 / 16}
    tower = {"depth": 2, "num_heads": 2, "hidden_size": HIDDEN, "intermediate_size": 2 * HIDDEN, "patch_size": PATCH}
    config = CohereCompassConfig(
        text_config=text_options(spare(tokenizer), tokenizer)
        | layers
        | {"rope_parameters": {"sliding_attention": rope, "full_attention": None}},
        vision_config=tower
        | {
            "out_hidden_size": HIDDEN,
            "num_position_embeddings": (IMAGE // PATCH) ** 2,
            "deepstack_visual_indexes": [0],
        },
        **{f"{role}_token_id": tokenizer.convert_tokens_to_ids(f"<|{name}|>") for role, name in names.items()},
    )
    save(folder, CohereCompassForConditionalGeneration(config), processor)
