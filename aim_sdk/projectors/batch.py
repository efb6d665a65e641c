"""Several readings as one padded batch: the input of a projector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from aim_sdk.types import Reading


@dataclass(frozen=True, slots=True)
class ReadingBatch:
    """Readings padded on the right to one length."""

    hidden: Float[Tensor, "batch tokens hidden"]
    """The chosen layers side by side."""
    embeddings: Float[Tensor, "batch tokens embed"]
    mask: Bool[Tensor, "batch tokens"]
    """True on real tokens."""
    image_position: Int[Tensor, " batch"]
    answer_start: Int[Tensor, " batch"]

    @classmethod
    def collate(cls, readings: Sequence[Reading]) -> Self:
        """Pad at least one reading with zeros."""
        hidden = pad_sequence([reading.hidden for reading in readings], batch_first=True)
        lengths = torch.tensor([len(reading) for reading in readings])
        return cls(
            hidden=hidden,
            embeddings=pad_sequence([reading.embeddings for reading in readings], batch_first=True),
            mask=(torch.arange(hidden.shape[1]) < lengths[:, None]).to(hidden.device),
            image_position=torch.tensor([reading.image_position for reading in readings]).to(hidden.device),
            answer_start=torch.tensor([reading.answer_start for reading in readings]).to(hidden.device),
        )
