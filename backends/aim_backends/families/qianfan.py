"""Qianfan-OCR."""

from __future__ import annotations

from aim_backends.hf.backbone import Backbone


class QianfanOCR(Backbone):
    """A prompt marks an image with text of its own, which is not the token that the processor repeats."""

    def _placeholder(self) -> str:
        return str(self.processor.image_placeholder_token)
