"""Emu 3."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

from aim_backends.hf.backbone import Backbone
from aim_backends.hf.roles import SpecialTokens


class Emu3(Backbone):
    """Its tower would see what smaller images of a batch are padded with: here it sees each image alone."""

    def __init__(self, model: Any, processor: Any, source: str, special_tokens: SpecialTokens = "refuse") -> None:
        see_each_alone(model)
        super().__init__(model, processor, source, special_tokens)


def see_each_alone(model: Any) -> None:
    """Make a model of transformers see each image without its padding."""
    tower = model.model.vqmodel
    tower.encode = partial(_alone, tower.encode)


def _alone(encode: Callable[..., Any], pixel_values: Tensor, image_sizes: Tensor, **options: Any) -> Any:
    images = zip(pixel_values, image_sizes.tolist(), strict=True)
    found = [encode(image[None, :, :height, :width], [(height, width)], **options) for image, (height, width) in images]
    found[0].image_tokens = [tokens for one in found for tokens in one.image_tokens]
    return found[0]
