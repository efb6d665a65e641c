"""The sizes of the backbones that have a recipe, as their published configurations say them.

`tests/unit/test_recipes.py` builds each of them without memory (on the device ``meta``) and counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Decoder:
    """An inner LLM."""

    layers: int
    hidden: int
    inner: int
    heads: int
    key_value_heads: int
    head: int
    """Width of a head."""
    vocabulary: int
    context: int
    """The most positions of a prompt and its answer."""
    normed_heads: bool = False
    """Whether queries and keys have a norm of their own."""

    @property
    def weights(self) -> int:
        """Parameters that every position is multiplied by: those of all layers, without the LM head."""
        attention = 2 * self.hidden * self.head * (self.heads + self.key_value_heads)
        return self.layers * (attention + 3 * self.hidden * self.inner)


@dataclass(frozen=True, slots=True)
class Tower:
    """A vision tower: what an image of 640 x 480 pixels costs in it."""

    layers: int
    hidden: int
    weights: int
    """Parameters that every patch is multiplied by."""
    patches: int
    """Positions of one view."""
    views: int = 1
    """The whole image and its tiles."""


@dataclass(frozen=True, slots=True)
class Backbone:
    """One model with a recipe."""

    model: str
    """Its id on the Hub."""
    parameters: int
    decoder: Decoder
    tower: Tower
    visual_tokens: int
    """Of a 640 x 480 image."""
    tokens_of_several: int | None = None
    """The same if a prompt has several images; None: as many."""
    views_of_several: int | None = None


_CLIP_L = (24, 1024, 302_309_376)
_SIGLIP = (27, 1152, 411_466_608)
_MISTRAL = (32, 4096, 14336, 32, 8, 128)
_QWEN_7B = (28, 3584, 18944, 28, 4, 128)

BACKBONES: Final = {
    "llava-1.5-7b": Backbone(
        "llava-hf/llava-1.5-7b-hf",
        7_063_427_072,
        Decoder(32, 4096, 11008, 32, 32, 128, vocabulary=32064, context=4096),
        Tower(*_CLIP_L, patches=577),
        visual_tokens=576,
    ),
    "llava-next-7b": Backbone(
        "llava-hf/llava-v1.6-mistral-7b-hf",
        7_566_747_648,
        Decoder(*_MISTRAL, vocabulary=32064, context=32768),
        Tower(*_CLIP_L, patches=577, views=5),
        visual_tokens=2340,
    ),
    "llava-onevision-7b": Backbone(
        "llava-hf/llava-onevision-qwen2-7b-ov-hf",
        8_029_890_080,
        Decoder(*_QWEN_7B, vocabulary=152000, context=32768),
        Tower(26, 1152, 396_227_104, patches=729, views=5),
        visual_tokens=2929,
        tokens_of_several=730,  # its processor cuts an image into tiles only if it is alone
        views_of_several=1,
    ),
    "qwen2.5-vl-7b": Backbone(
        "Qwen/Qwen2.5-VL-7B-Instruct",
        8_292_166_656,
        Decoder(*_QWEN_7B, vocabulary=152064, context=128000),
        Tower(32, 1280, 630_470_400, patches=1564),
        visual_tokens=391,
    ),
    "qwen3-vl-8b": Backbone(
        "Qwen/Qwen3-VL-8B-Instruct",
        8_767_123_696,
        Decoder(36, 4096, 12288, 32, 8, 128, vocabulary=151936, context=262144, normed_heads=True),
        Tower(*_SIGLIP, patches=1200),
        visual_tokens=300,
    ),
    "idefics2-8b": Backbone(
        "HuggingFaceM4/idefics2-8b",
        8_402_768_112,
        Decoder(*_MISTRAL, vocabulary=32003, context=32768),
        Tower(*_SIGLIP, patches=1530),
        visual_tokens=64,
    ),
    "smolvlm-500m": Backbone(
        "HuggingFaceTB/SmolVLM-500M-Instruct",
        507_482_304,
        Decoder(32, 960, 2560, 15, 5, 64, vocabulary=49280, context=8192),
        Tower(12, 768, 85_054_464, patches=1024, views=13),
        visual_tokens=832,
    ),
    "internvl3-8b": Backbone(
        "OpenGVLab/InternVL3-8B-hf",
        7_944_300_032,
        Decoder(*_QWEN_7B, vocabulary=151674, context=32768),
        Tower(24, 1024, 302_284_800, patches=1025, views=13),
        visual_tokens=3328,
    ),
}
"""By the names of their recipes."""
