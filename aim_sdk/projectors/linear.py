"""One linear layer on every token: the paper's projector, and a variant with a norm after it."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from aim_sdk.layers import LAST
from aim_sdk.projectors.base import Projector
from aim_sdk.projectors.batch import ReadingBatch
from aim_sdk.types import Vocabulary


class LinearProjector(Projector):
    """W h + b on every token, as in the AIM paper (Gao et al., 2024, arXiv 2406.07588)."""

    kind = "linear"
    learning_rate = 1e-3

    def __init__(self, hidden_size: int, embedding_size: int, *, layers: Sequence[int] = LAST) -> None:
        super().__init__(hidden_size, embedding_size, layers=layers)
        self.linear = nn.Linear(self.width, embedding_size)

    def forward(self, batch: ReadingBatch) -> Float[Tensor, "batch tokens embed"]:
        fused: Tensor = self.linear(batch.hidden.to(self.linear.weight.dtype))
        return fused.to(batch.embeddings.dtype)


class LinearNormProjector(Projector):
    """LN(W h + b) on every token: the "Linear + LayerNorm" recipe of vision-language connectors.

    The gain starts at the RMS of the input embeddings: whatever W is, a fused token has a typical token's scale.
    """

    kind = "linear-norm"
    learning_rate = 1e-3

    def __init__(self, hidden_size: int, embedding_size: int, *, layers: Sequence[int] = LAST) -> None:
        super().__init__(hidden_size, embedding_size, layers=layers)
        self.linear = nn.Linear(self.width, embedding_size)
        self.norm = nn.LayerNorm(embedding_size)

    def start(self, vocabulary: Vocabulary) -> None:
        self.norm.weight.fill_(vocabulary.fingerprint.embedding_rms)

    def forward(self, batch: ReadingBatch) -> Float[Tensor, "batch tokens embed"]:
        fused: Tensor = self.norm(self.linear(batch.hidden.to(self.linear.weight.dtype)))
        return fused.to(batch.embeddings.dtype)
