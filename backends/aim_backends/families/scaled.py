"""Families whose logits are the head's times a number: Granite's, Cohere Compass."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from aim_backends.hf.backbone import Backbone


class ScaledLogits(Backbone):
    """Here that number belongs to the head's matrix."""

    @property
    def output_embeddings(self) -> Float[Tensor, "vocabulary hidden"]:
        config = self.model.config.get_text_config()
        scale = getattr(config, "logit_scale", None) or 1 / getattr(config, "logits_scaling", 1.0)
        return super().output_embeddings * scale
