"""Carriers: one token of a demonstration takes what the image has made the backbone expect, all others stay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from aim_sdk.errors import InputError
from aim_sdk.interfaces import Backend, Projector, ReadingBatch
from aim_sdk.layers import LAST


class CarrierProjector(Projector):
    """Moves what the backbone expects before the answer onto the text token where the image stood.

    The reading ``h`` at the last token before the answer is what the image made the backbone expect next. Through the
    vocabulary it becomes the embedding of the expected token, ``s = E_in^T softmax(E_out h)``. With ``v = W LN(s)`` and
    ``g = sigmoid(gate)`` the carrier's embedding ``e`` becomes ``(1 - g) e + g v``. All other tokens keep their own
    embeddings, so the answer's format survives. Works without training (:meth:`training_free`), and trains from there.
    E_in and E_out are the backbone's own: :meth:`bind` takes them, an artifact does not hold them.
    """

    kind = "carrier"

    def __init__(self, hidden_size: int, embedding_size: int, *, layers: Sequence[int] = LAST) -> None:
        super().__init__(hidden_size, embedding_size, layers=layers)
        self.norm = nn.LayerNorm(embedding_size)
        self.weight = nn.Parameter(torch.eye(embedding_size))
        self.gate = nn.Parameter(torch.tensor(4.0))
        self._vocabulary: tuple[Tensor, Tensor] | None = None

    @classmethod
    def training_free(cls, backend: Backend) -> Self:
        """One that works as it is."""
        return cls.untrained(backend)

    def start(self, backend: Backend) -> None:
        """W = the RMS of the input embeddings times the identity: a carrier has a typical token's scale."""
        self.weight.copy_(torch.eye(self.embedding_size) * backend.fingerprint.embedding_rms)

    def bind(self, backend: Backend) -> None:
        outputs, inputs = backend.output_embeddings.detach(), backend.input_embeddings.detach()
        rows = min(len(outputs), len(inputs))  # either may have spare rows
        self._vocabulary = outputs[:rows], inputs[:rows]

    def rate(self, name: str) -> float:
        """20 for gate and norm: at the rate that suits them, W is destroyed (measured on pocket: 3e-3 and 1.5e-4)."""
        return 1.0 if name == "weight" else 20.0

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
