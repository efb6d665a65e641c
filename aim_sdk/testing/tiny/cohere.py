"""Cohere 2 Vision (Command A Vision)."""

from pathlib import Path

from transformers import (
    Cohere2Config,
    Cohere2VisionConfig,
    Cohere2VisionForConditionalGeneration,
    Cohere2VisionImageProcessor,
    Cohere2VisionProcessor,
)

from .common import HIDDEN, byte_level_tokenizer, save, siglip, text_options
from .generic import AYA, SIZE

TEMPLATE = AYA.replace("<image>", "<|IMG_PATCH|>")


def cohere2_vision(folder: Path) -> None:
    """4 visual tokens and a line end a tile, up to two tiles and a thumbnail."""
    roles = ["SYSTEM", "USER", "CHATBOT", "START_OF_TURN", "END_OF_TURN"]
    images = {"boi": "START_OF_IMG", "eoi": "END_OF_IMG", "img_line_break": "IMG_LINE_BREAK", "image": "IMG_PATCH"}
    tokenizer = byte_level_tokenizer(
        [
            *("<PAD>", "<UNK>", "<BOS_TOKEN>", *(f"<|{role}_TOKEN|>" for role in roles)),
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
