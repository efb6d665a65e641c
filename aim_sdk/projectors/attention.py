"""A demonstration's tokens attend to each other before they become fused tokens."""

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


class AttentionProjector(Projector):
    """Token embedding + O softmax(Q K^T / sqrt(d)) V over the demonstration's own tokens, Q, K, V linear in LN(h).

    Multi-head attention (Vaswani et al., 2017, arXiv 1706.03762) without a mask but the padding's: the reading before
    the answer, which holds the image, can go to any token. Positions are in the readings. O starts at zero: untrained,
    it is bit-identical to text-only demonstrations.

    Args:
        heads: number of heads.
        inner: width of Q, K and V, of all heads together.

    Raises:
        InputError: ``inner`` is not a multiple of ``heads``.
    """

    kind = "attention"

    def __init__(
        self,
        hidden_size: int,
        embedding_size: int,
        *,
        layers: Sequence[int] = LAST,
        heads: int = 4,
        inner: int = 256,
    ) -> None:
        if heads < 1 or inner < heads or inner % heads:
            raise InputError(
                f"an attention projector with heads={heads} and inner={inner}: expected a width that is a multiple of "
                "the number of heads."
            )
        super().__init__(hidden_size, embedding_size, layers=layers, heads=heads, inner=inner)
        self.heads = heads
        self.norm = LayersNorm(hidden_size, len(self.layers))
        self.inputs = nn.Linear(self.width, 3 * inner, bias=False)
        self.output = nn.Linear(inner, embedding_size, bias=False)
        nn.init.zeros_(self.output.weight)

    def forward(self, batch: ReadingBatch) -> Float[Tensor, "batch tokens embed"]:
        normed = self.norm(batch.hidden.to(self.inputs.weight.dtype))
        normed = normed.masked_fill(~batch.mask[..., None], 0)  # a NaN at padding would reach the rest: 0 * NaN
        split = self.inputs(normed).view(*normed.shape[:2], 3, self.heads, -1)
        queries, keys, values = split.permute(2, 0, 3, 1, 4)  # (batch, heads, tokens, inner / heads)
        mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=batch.mask[:, None, None])
        update: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return batch.embeddings + update.to(batch.embeddings.dtype)
