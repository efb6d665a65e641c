"""Prompts as rows of embeddings: texts from the embedding matrix, images from an encoder, fused tokens as they are."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from aim_backends.shared.segments import PromptSegments, SegmentWriter
from aim_sdk.config import PromptFormat
from aim_sdk.errors import ImageError
from aim_sdk.types import Context, Demonstration, FusedTokens, ImageInput, Query


class ImageRows(Protocol):
    """Encodes images."""

    @abstractmethod
    def encode(self, sources: Sequence[ImageInput]) -> list[Float[Tensor, "tokens embed"]]:
        """The embeddings of each image.

        Raises:
            ImageError: one cannot be used.
        """

    @abstractmethod
    def count(self, source: ImageInput) -> int:
        """How many embeddings an image takes; it is not encoded.

        Raises:
            ImageError: it cannot be used.
        """


@dataclass(frozen=True)
class PromptRows:
    """What prompts are made of."""

    prompts: SegmentWriter
    images: ImageRows
    embed: Callable[[Sequence[int]], Float[Tensor, "tokens embed"]]
    """The embeddings of tokens."""

    def context(self, context: Context, prompt_format: PromptFormat) -> list[Float[Tensor, "tokens embed"]]:
        """The rows of each item that stands before a query."""
        return [self._item(item, prompt_format) for item in context]

    def queries(self, queries: Sequence[Query], prompt_format: PromptFormat) -> list[Float[Tensor, "tokens embed"]]:
        """The rows of each query.

        Raises:
            ImageError: an image cannot be used; its ``query`` is the place.
        """
        made = []
        for place, query in enumerate(queries):
            try:
                (image,) = self.images.encode([query.image])
            except ImageError as error:
                error.query = place
                raise
            made.append(self._joined(self.prompts.query(query, prompt_format), image))
        return made

    def _item(self, item: FusedTokens | Demonstration, prompt_format: PromptFormat) -> Tensor:
        if isinstance(item, FusedTokens):
            return item.embeddings.detach().to("cpu", torch.float32)
        (image,) = self.images.encode([item.image])
        return self._joined(self.prompts.demonstration(item, prompt_format), image)

    def _joined(self, segments: PromptSegments, image: Tensor) -> Tensor:
        after = self.embed([*segments.after, *segments.answer])
        return torch.cat([self.embed(segments.before), image, after])
