"""Pocket's visual tokens: an image is encoded once, however many prompts hold it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image

from aim_backends.pocket.images import ImageEncoder


class Model:
    """Notes what is encoded."""

    def __init__(self) -> None:
        self.encoded: list[int] = []

    def encode_pixels(self, images: Sequence[torch.Tensor]) -> torch.Tensor:
        self.encoded.append(len(images))
        visual = [image.float().mean().expand(16, 4) for image in images]
        return torch.stack(visual) if visual else torch.zeros(0, 16, 4)


def test_an_image_of_two_prompts_that_were_prepared_together_is_encoded_once() -> None:
    model = Model()
    images = ImageEncoder(model)  # type: ignore[arg-type]
    red, blue = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    first, second = images.prepare([red]), images.prepare([blue, red])
    (alone,) = images.run(first)
    _, again = images.run(second)
    assert torch.equal(alone, again)
    assert model.encoded == [1, 1]
