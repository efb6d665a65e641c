"""Checkpoints' sizes: configuration and image sizes of each, around the tests' tokenizer and chat template."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers import (
    CLIPVisionConfig,
    Idefics2Config,
    LlamaConfig,
    LlavaConfig,
    LlavaNextConfig,
    MistralConfig,
    PretrainedConfig,
    Qwen2_5_VLConfig,
)

TILES = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
"""The sizes that LLaVA-NeXT cuts images into, beside the whole at 336 pixels."""


@dataclass(frozen=True)
class Shape:
    """One checkpoint's sizes."""

    checkpoint: str
    """Whose sizes they are; it is not read."""
    tiny: str
    """The tests' model of the family: `aim_sdk.testing.tiny`."""
    sizes: Callable[[PretrainedConfig], PretrainedConfig]
    """The tests' configuration with the checkpoint's sizes; it keeps the tokens' ids, which are the tokenizer's."""
    images: Callable[[Any], None]
    """Gives a processor the checkpoint's image sizes."""
    visual_tokens: int
    """Of an image of 640 x 480 pixels."""


def _ids(config: PretrainedConfig) -> dict[str, Any]:
    text = config.get_text_config()
    return {name: getattr(text, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}


def _clip() -> CLIPVisionConfig:
    """CLIP's ViT-L/14 at 336 pixels."""
    return CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=336,
        patch_size=14,
        projection_dim=768,
    )


def _mistral(config: PretrainedConfig, **options: Any) -> MistralConfig:
    """Mistral 7B's second edition."""
    return MistralConfig(
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=32768,
        sliding_window=None,
        **_ids(config),
        **options,
    )


def _llava_15(config: PretrainedConfig) -> LlavaConfig:
    text = LlamaConfig(
        vocab_size=32064,
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
        max_position_embeddings=4096,
        rms_norm_eps=1e-5,
        **_ids(config),
    )
    return LlavaConfig(
        vision_config=_clip(), text_config=text, image_token_index=config.image_token_index, image_seq_length=576
    )


def _llava_next(config: PretrainedConfig) -> LlavaNextConfig:
    return LlavaNextConfig(
        vision_config=_clip(),
        text_config=_mistral(config, vocab_size=32064, rope_parameters={"rope_type": "default", "rope_theta": 1e6}),
        image_token_index=config.image_token_index,
        image_grid_pinpoints=TILES,
        image_seq_length=576,
    )


def _qwen25_vl(config: PretrainedConfig) -> Qwen2_5_VLConfig:
    text = {
        "vocab_size": 152064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "max_position_embeddings": 128000,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
        **_ids(config),
    }
    vision = {
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "out_hidden_size": 3584,
        "patch_size": 14,
        "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
    }
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    return Qwen2_5_VLConfig(text_config=text, vision_config=vision, **{name: getattr(config, name) for name in names})


def _idefics2(config: PretrainedConfig) -> Idefics2Config:
    vision = {
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "image_size": 980,
        "patch_size": 14,
    }
    perceiver = {
        "hidden_size": 4096,
        "resampler_n_latents": 64,
        "resampler_depth": 3,
        "resampler_n_heads": 16,
        "resampler_head_dim": 96,
        "num_key_value_heads": 4,
    }
    text = _mistral(config, vocab_size=32003)
    ids = {"image_token_id": config.image_token_id}
    return Idefics2Config(vision_config=vision, perceiver_config=perceiver, text_config=text, **ids)


def _clip_images(processor: Any) -> None:
    images = processor.image_processor
    images.size, images.crop_size = {"shortest_edge": 336}, {"height": 336, "width": 336}
    processor.patch_size = 14


def _tiles(processor: Any) -> None:
    _clip_images(processor)
    processor.image_processor.image_grid_pinpoints = TILES


def _qwen_images(processor: Any) -> None:
    images = processor.image_processor
    images.patch_size, images.size = 14, {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 16384}


def _idefics2_images(processor: Any) -> None:
    processor.image_processor.size = {"shortest_edge": 378, "longest_edge": 980}
    processor.image_seq_len = 64


SHAPES = {
    "llava-1.5-7b": Shape("llava-hf/llava-1.5-7b-hf", "llava-1.5", _llava_15, _clip_images, 576),
    "llava-next-7b": Shape("llava-hf/llava-v1.6-mistral-7b-hf", "llava-next", _llava_next, _tiles, 2340),
    "qwen2.5-vl-7b": Shape("Qwen/Qwen2.5-VL-7B-Instruct", "qwen2.5-vl", _qwen25_vl, _qwen_images, 391),
    "idefics2-8b": Shape("HuggingFaceM4/idefics2-8b", "idefics2", _idefics2, _idefics2_images, 64),
}
