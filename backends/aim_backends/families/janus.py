"""Janus."""

from __future__ import annotations

from typing import Any

from transformers import GenerationMixin

from aim_backends.hf.backbone import Backbone


class Janus(Backbone):
    """Its own ``generate``, which also makes images, loses the logits processors of text."""

    def generate(self, **options: Any) -> Any:
        return GenerationMixin.generate(self.model, **{"guidance_scale": None, **options})
