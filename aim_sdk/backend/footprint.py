"""What prompts of one model take, counted before its weights are loaded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from aim_sdk.config import PromptFormat
from aim_sdk.types import Demonstration, Query


@dataclass(frozen=True, slots=True)
class ModelSizes:
    """What is known of a model without its weights, on the device and in the dtype that it would run in."""

    model: str
    """A hub id or a folder."""
    device: torch.device
    dtype: torch.dtype
    weights_bytes: int | None
    """Of all weights in memory; None if that is not known."""
    context_length: int | None
    """The most positions that a prompt and its answer may have; None if the model does not say."""
    most_images: int | None
    """How many images one prompt may hold, the query's too; None if only the context's length limits them."""
    embedding_size: int
    """Numbers of a fused token."""
    hidden_size: int
    """Numbers of a hidden state."""
    default_format: PromptFormat
    uncounted: tuple[str, ...] = ()
    """What `Footprint.kv_bytes` leaves out, a sentence each."""


class Footprint(ABC):
    """Counts tokens and bytes of prompts. Nothing here runs the model; images are looked at for their sizes alone.

    Args:
        sizes: of the model.
    """

    def __init__(self, sizes: ModelSizes) -> None:
        self.sizes = sizes

    @abstractmethod
    def text_tokens(self, demonstrations: Sequence[Demonstration], *, prompt_format: PromptFormat) -> list[int]:
        """Return the text tokens of each demonstration: as many as its reading has, and its fused tokens.

        Raises:
            InputError: a text cannot be used.
        """

    @abstractmethod
    def prompt_tokens(self, query: Query, shown: Sequence[Demonstration], *, prompt_format: PromptFormat) -> int:
        """Return `Generation.prompt_tokens` of a query after demonstrations with their images, or after none.

        Raises:
            InputError: a text or an image cannot be used.
        """

    @abstractmethod
    def kv_bytes(self, tokens: int, images: int) -> int | None:
        """Return the bytes that one prompt's keys and values take, after it is computed; None if that is not known."""
