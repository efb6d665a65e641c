"""The built-in projectors: small modules over padded readings. :mod:`aim_sdk.artifacts` saves and loads them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from aim_sdk.errors import InputError, did_you_mean
from aim_sdk.interfaces import Backend, Projector, ReadingBatch


class LinearProjector(Projector):
    """One linear layer on every token, as in the AIM paper (Gao et al., 2024, arXiv 2406.07588)."""

    kind = "linear"

    def __init__(self, hidden_size: int, embedding_size: int) -> None:
        super().__init__(hidden_size, embedding_size)
        self.linear = nn.Linear(hidden_size, embedding_size)

    def forward(self, batch: ReadingBatch) -> Float[Tensor, "batch tokens embed"]:
        fused: Tensor = self.linear(batch.hidden.to(self.linear.weight.dtype))
        return fused.to(batch.embeddings.dtype)


class ResidualProjector(Projector):
    """Token embedding + W LN(reading). W starts at zero: untrained, it is bit-identical to text-only demonstrations."""

    kind = "residual"

    def __init__(self, hidden_size: int, embedding_size: int) -> None:
        super().__init__(hidden_size, embedding_size)
        self.norm = nn.LayerNorm(hidden_size)
        self.linear = nn.Linear(hidden_size, embedding_size, bias=False)
        nn.init.zeros_(self.linear.weight)

    def forward(self, batch: ReadingBatch) -> Float[Tensor, "batch tokens embed"]:
        update: Tensor = self.linear(self.norm(batch.hidden.to(self.linear.weight.dtype)))
        return batch.embeddings + update.to(batch.embeddings.dtype)


class CarrierProjector(Projector):
    """Moves the reading at the last token before the answer onto the text token where the image stood.

    In a causal LM that reading is what the image made the backbone expect next. With ``v = W LN(h - mean)`` and
    ``g = sigmoid(gate)`` the carrier's embedding ``e`` becomes ``(1 - g) e + g v``; all other tokens keep their own
    embeddings, so the answer's format survives. Works without training (:meth:`training_free`), and trains from there.
    """

    kind = "carrier"
    mean: Tensor

    def __init__(self, hidden_size: int, embedding_size: int) -> None:
        super().__init__(hidden_size, embedding_size)
        self.register_buffer("mean", torch.zeros(hidden_size))
        self.norm = nn.LayerNorm(hidden_size)
        self.weight = nn.Parameter(torch.zeros(embedding_size, hidden_size))
        self.gate = nn.Parameter(torch.tensor(4.0))

    @classmethod
    def training_free(cls, backend: Backend, *, ridge: float = 1e-2) -> CarrierProjector:
        """Start from the least-squares map of output directions to input embeddings over the vocabulary.

        W solves ``min sum_t |W LN(u_t) - e_t|^2`` over the rows u of the LM head and e of the input embeddings, then is
        scaled so that a carrier has a typical token embedding's RMS. Where they are tied and square it is close to a
        multiple of the identity: a hidden state points at the token it expects.
        """
        directions = backend.output_embeddings.detach().float()
        embeddings = backend.input_embeddings.detach().float()
        rows = min(len(directions), len(embeddings))
        directions, embeddings = F.layer_norm(directions[:rows], directions.shape[1:]), embeddings[:rows]
        projector = cls(directions.shape[1], embeddings.shape[1]).to(directions.device)
        gram = directions.T @ directions
        gram += ridge * gram.diagonal().mean() * torch.eye(len(gram), device=gram.device)
        weight = torch.linalg.solve(gram, directions.T @ embeddings).T
        rms = embeddings.square().mean().sqrt() / (directions @ weight.T).square().mean().sqrt().clamp_min(1e-12)
        with torch.no_grad():
            projector.weight.copy_(weight * rms)
        return projector

    def forward(self, batch: ReadingBatch) -> Float[Tensor, "batch tokens embed"]:
        rows = torch.arange(len(batch.hidden), device=batch.hidden.device)
        # The token before the answer is never moved: it is where the answer is predicted from.
        place = torch.minimum(batch.image_position, (batch.answer_start - 2).clamp_min(0))
        last = batch.hidden[rows, (batch.answer_start - 1).clamp_min(0)].to(self.weight.dtype)
        value = F.linear(self.norm(last - self.mean), self.weight)
        embedding = batch.embeddings[rows, place].to(value.dtype)
        gate = torch.sigmoid(self.gate)
        carrier = (1 - gate) * embedding + gate * value
        return batch.embeddings.index_put((rows, place), carrier.to(batch.embeddings.dtype))


KINDS: dict[str, type[Projector]] = {cls.kind: cls for cls in (LinearProjector, ResidualProjector, CarrierProjector)}
"""The built-in projectors by kind."""


def untrained(kind: str, backend: Backend) -> Projector:
    """Build a built-in projector that fits a backbone, before any training.

    Raises:
        InputError: no projector is of that kind.
    """
    if kind not in KINDS:
        raise InputError(
            f"unknown projector kind {kind!r}.{did_you_mean(kind, KINDS)} Expected one of: {', '.join(KINDS)}."
        )
    cls = KINDS[kind]
    if issubclass(cls, CarrierProjector):
        return cls.training_free(backend)
    device = backend.input_embeddings.device
    return cls(backend.output_embeddings.shape[1], backend.input_embeddings.shape[1]).to(device)
