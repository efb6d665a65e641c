"""What a projector is: readings in, fused tokens out, and nothing of a backbone but its vocabulary."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from aim_sdk.layers import LAST, check_layers, check_there
from aim_sdk.projectors.saved import SavedProjector, check_options, kept_options
from aim_sdk.types import FusedTokens, Reading, Vocabulary


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


class Projector(nn.Module, SavedProjector, ABC):
    """Turns readings into fused tokens of the same number; the only trainable part.

    A subclass names its ``kind`` (unique; saved artifacts are loaded by it) and implements `forward`. It may move
    information between the tokens of one demonstration, never between demonstrations.

    Args:
        hidden_size, embedding_size: the backbone's; `width` is that of a reading of all ``layers``.
        layers: what it reads, counted as in [`aim_sdk.layers`][aim_sdk.layers].
        **options: what else a kind's constructor takes (sizes of its own, say): saved with it and given back to it.
    """

    def __init__(self, hidden_size: int, embedding_size: int, *, layers: Sequence[int] = LAST, **options: Any) -> None:
        super().__init__()
        self.hidden_size, self.embedding_size = hidden_size, embedding_size
        self.layers, self.options = check_layers(layers), options
        self.width = hidden_size * len(self.layers)
        self.fingerprint = None
        self.summary = {}
        self._hub_mixin_config = None  # projector_config.json is the only config

    @abstractmethod
    def forward(self, batch: ReadingBatch) -> Float[Tensor, "batch tokens embed"]:
        """Project padded readings; what stands at padding must not change the rest, and is cut off."""

    @classmethod
    def untrained(cls, vocabulary: Vocabulary, *, layers: Sequence[int] = LAST, **options: Any) -> Self:
        """Build one that fits a backbone (`Backend.vocabulary`), with the weights that training begins from.

        Raises:
            InputError: the kind has no such option, or the backbone no such layer.
        """
        check_options(cls, options)
        check_there(layers, vocabulary.decoder_layers)
        inputs, outputs = vocabulary.inputs, vocabulary.outputs
        made = cls(outputs.shape[1], inputs.shape[1], **kept_options(layers, options)).to(inputs.device)
        with torch.no_grad():
            made.start(vocabulary)
        made.bind(vocabulary)
        made.fingerprint = vocabulary.fingerprint
        return made

    def start(self, vocabulary: Vocabulary) -> None:
        """Set the weights to where training begins on this backbone; the constructor's are right for many kinds."""

    def bind(self, vocabulary: Vocabulary) -> None:
        """Take what the projector needs of its backbone besides the readings; called before the first projection."""

    def rate(self, name: str) -> float:
        """The factor of the learning rate for the parameter of that name."""
        return 1.0

    def project(self, readings: Sequence[Reading]) -> list[FusedTokens]:
        """Project readings of any lengths; dtype and device are the embeddings'."""
        if not readings:
            return []
        fused = self(ReadingBatch.collate(readings))
        return [FusedTokens(row[: len(reading)]) for row, reading in zip(fused, readings, strict=True)]


@runtime_checkable
class Calibrates(Protocol):
    """A projector that takes something from typical readings (a mean, say) before it is trained."""

    def calibrate(self, readings: Sequence[Reading]) -> None:
        """Take it."""
