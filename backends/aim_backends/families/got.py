"""GOT-OCR 2."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from PIL import Image

from aim_backends.hf.backbone import Backbone
from aim_sdk.config import PromptFormat


class GotOcr2(Backbone):
    """Its processor writes the turns itself, there is no chat template; it takes the images of a batch in one list."""

    @cached_property
    def default_format(self) -> PromptFormat:
        begin, end = self.processor.message_start_token, self.processor.message_end_token
        turns = f"{begin}user\n{{image}}\n{{text}}{end}{begin}assistant\n{{answer}}{end}"
        return PromptFormat.plain(turns, system=f"{begin}{self.processor.system_query}{end}")

    def _placeholder(self) -> str:
        """The processor expands the token, but leaves the marks around it to the prompt."""
        return f"{self.processor.img_start_token}{self.processor.image_token}{self.processor.img_end_token}"

    def given_images(self, images: Sequence[Sequence[Image.Image]]) -> list[Any]:
        return [image for row in images for image in row]
