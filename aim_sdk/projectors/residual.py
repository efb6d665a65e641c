"""A token's own embedding plus what its reading adds: untrained, nothing."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from aim_sdk.errors import InputError
from aim_sdk.layers import LAST
from aim_sdk.projectors.base import Projector
from aim_sdk.projectors.batch import ReadingBatch
from aim_sdk.projectors.norm import LayersNorm


class ResidualProjector(Projector):
    """Token embedding + W LN(h). W starts at zero: untrained, it is bit-identical to text-only demonstrations."""

    kind = "residual"

    def __init__(self, hidden_size: int, embedding_size: int, *, layers: Sequence[int] = LAST) -> None:
        super().__init__(hidden_size, embedding_size, layers=layers)
        self.norm = LayersNorm(hidden_size, len(self.layers))
        self.linear = nn.Linear(self.width, embedding_size, bias=False)
        nn.init.zeros_(self.linear.weight)

    def forward(self, batch: ReadingBatch) -> Float[Tensor, "batch tokens embed"]:
        update: Tensor = self.linear(self.norm(batch.hidden.to(self.linear.weight.dtype)))
        return batch.embeddings + update.to(batch.embeddings.dtype)


class ResidualMLPProjector(Projector):
    """Token embedding + W2 GELU(W1 LN(h) + b1) + b2, LLaVA-1.5's two-layer connector (arXiv 2310.03744) as a residual.

    W2 and b2 start at zero: untrained, it is bit-identical to text-only demonstrations.

    Args:
        inner: width between the two layers; None takes the embeddings'.
    """

    kind = "residual-mlp"

    def __init__(
        self, hidden_size: int, embedding_size: int, *, layers: Sequence[int] = LAST, inner: int | None = None
    ) -> None:
        inner = embedding_size if inner is None else inner
        if inner < 1:
            raise InputError(f"a residual-mlp projector with inner={inner}: expected a width of 1 or more.")
        super().__init__(hidden_size, embedding_size, layers=layers, inner=inner)
        self.norm = LayersNorm(hidden_size, len(self.layers))
        self.first, self.second = nn.Linear(self.width, inner), nn.Linear(inner, embedding_size)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, batch: ReadingBatch) -> Float[Tensor, "batch tokens embed"]:
        update: Tensor = self.second(F.gelu(self.first(self.norm(batch.hidden.to(self.first.weight.dtype)))))
        return batch.embeddings + update.to(batch.embeddings.dtype)
