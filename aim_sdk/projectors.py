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
    """Moves what the backbone expects before the answer onto the text token where the image stood.

    The reading ``h`` at the last token before the answer is what the image made the backbone expect next. Through the
    vocabulary it becomes the embedding of the expected token, ``s = E_in^T softmax(E_out h)``. With ``v = W LN(s)`` and
    ``g = sigmoid(gate)`` the carrier's embedding ``e`` becomes ``(1 - g) e + g v``. All other tokens keep their own
    embeddings, so the answer's format survives. Works without training (:meth:`training_free`), and trains from there.
    E_in and E_out are the backbone's own: :meth:`bind` takes them, an artifact does not hold them.
    """

    kind = "carrier"

    def __init__(self, hidden_size: int, embedding_size: int) -> None:
        super().__init__(hidden_size, embedding_size)
        self.norm = nn.LayerNorm(embedding_size)
        self.weight = nn.Parameter(torch.eye(embedding_size))
        self.gate = nn.Parameter(torch.tensor(4.0))
        self._vocabulary: tuple[Tensor, Tensor] | None = None

    @classmethod
    def training_free(cls, backend: Backend) -> CarrierProjector:
        """W = the RMS of the input embeddings times the identity: a carrier has a typical token's scale."""
        projector = cls(backend.fingerprint.hidden_size, backend.fingerprint.embedding_size)
        with torch.no_grad():
            projector.weight.mul_(backend.fingerprint.embedding_rms)
        projector.bind(backend)
        return projector

    def bind(self, backend: Backend) -> None:
        outputs, inputs = backend.output_embeddings.detach(), backend.input_embeddings.detach()
        rows = min(len(outputs), len(inputs))  # either may have spare rows
        self._vocabulary = outputs[:rows], inputs[:rows]

    def value(self, last: Float[Tensor, "batch hidden"]) -> Float[Tensor, "batch embed"]:
        """Map readings at the last token before the answer to carriers."""
        if self._vocabulary is None:
            raise InputError("a carrier needs its backbone's embeddings; call projector.bind(backend) first.")
        outputs, inputs = self._vocabulary
        expected = F.softmax(F.linear(last.to(outputs), outputs).float(), -1).to(inputs) @ inputs
        return F.linear(self.norm(expected.to(self.weight)), self.weight)

    def forward(self, batch: ReadingBatch) -> Float[Tensor, "batch tokens embed"]:
        rows = torch.arange(len(batch.hidden), device=batch.hidden.device)
        # The token before the answer is never moved: it is where the answer is predicted from.
        place = torch.minimum(batch.image_position, (batch.answer_start - 2).clamp_min(0))
        value = self.value(batch.hidden[rows, (batch.answer_start - 1).clamp_min(0)])
        gate = torch.sigmoid(self.gate)
        carrier = (1 - gate) * batch.embeddings[rows, place].to(value) + gate * value
        return batch.embeddings.index_put((rows, place), carrier.to(batch.embeddings))


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
