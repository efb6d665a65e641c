"""Inkling and Inkling 2."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from aim_backends.hf.backbone import Backbone


class Inkling(Backbone):
    """Its head has more rows than tokens, and leaves out what they give."""

    @property
    def output_embeddings(self) -> Float[Tensor, "vocabulary hidden"]:
        return super().output_embeddings[: self.model.config.get_text_config().unpadded_vocab_size]
