"""From visual features to visual tokens in the language model's embedding space."""

import torch.nn.functional as F
from torch import Tensor, nn

from aim_backends.pocket.vision import FEATURES

HIDDEN_SIZE = 576


class Connector(nn.Module):
    """LayerNorm, Linear, GELU, Linear, LayerNorm; each of the 16 positions on its own."""

    def __init__(self, features: int = FEATURES, hidden: int = HIDDEN_SIZE, scale: float = 0.1) -> None:
        super().__init__()
        self.norm_in = nn.LayerNorm(features)
        self.expand = nn.Linear(features, hidden)
        self.project = nn.Linear(hidden, hidden)
        self.norm_out = nn.LayerNorm(hidden)
        nn.init.constant_(self.norm_out.weight, scale)  # the embeddings' own scale

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(B, 16, 1416)`` to ``(B, 16, 576)``."""
        hidden: Tensor = self.expand(self.norm_in(features))
        out: Tensor = self.norm_out(self.project(F.gelu(hidden)))
        return out
