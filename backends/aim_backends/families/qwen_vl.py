"""The Qwen-VL families."""

from __future__ import annotations

from typing import Any

from PIL import Image

from aim_backends.hf.backbone import Backbone
from aim_sdk.backend.boxes import Steps


class QwenVL(Backbone):
    """Its boxes are counted in pixels of the resized image."""

    def box_steps(self, image: Image.Image) -> Steps:
        """The pixels of the image as the processor has resized it."""
        with self.processor_lock:
            images: Any = self.processor.image_processor
            _, down, across = images(images=[image], return_tensors="pt")["image_grid_thw"][0].tolist()
            return across * images.patch_size, down * images.patch_size
