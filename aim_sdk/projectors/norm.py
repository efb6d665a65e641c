"""The norm that readings of any layers go through."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class LayersNorm(nn.LayerNorm):
    """LN of each layer on its own: their scales differ by orders of magnitude. The gains and biases are one vector."""

    def __init__(self, hidden_size: int, layers: int) -> None:
        super().__init__(hidden_size * layers)
        self._layers = layers

    def forward(self, input: Float[Tensor, "*positions width"]) -> Float[Tensor, "*positions width"]:
        if self._layers == 1:
            return super().forward(input)
        apart = input.reshape(*input.shape[:-1], self._layers, -1)
        normed = F.layer_norm(apart, apart.shape[-1:], eps=self.eps).flatten(-2)
        return normed * self.weight + self.bias
