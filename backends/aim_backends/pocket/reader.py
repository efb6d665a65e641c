"""Reads demonstrations with pocket."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from aim_backends.pocket.images import DecodedImages, ImageEncoder
from aim_backends.pocket.model import PocketModel
from aim_backends.pocket.vision import VISUAL_TOKENS
from aim_backends.shared.readings import reading_of
from aim_backends.shared.segments import PromptSegments, SegmentWriter
from aim_sdk.backend.prepared import PreparedReadings
from aim_sdk.backend.reader import DemoReader
from aim_sdk.config import PromptFormat
from aim_sdk.errors import ContextLengthError
from aim_sdk.files.images import describe
from aim_sdk.layers import LAST, side_by_side
from aim_sdk.types import Demonstration, FusedTokens, Reading


@dataclass(frozen=True, kw_only=True)
class TokenisedReadings(PreparedReadings):
    """Demonstrations as tokens, with their images decoded."""

    segments: list[PromptSegments] = field(repr=False)
    images: DecodedImages | None
    """None if they are not looked at."""


class PocketReader(DemoReader):
    """One forward per batch, padded on the right; causal attention keeps every row independent of the rest."""

    def __init__(self, model: PocketModel, images: ImageEncoder, prompts: SegmentWriter) -> None:
        self._model, self._images, self._prompts = model, images, prompts

    def prepare(
        self,
        demonstrations: Sequence[Demonstration],
        *,
        prompt_format: PromptFormat,
        with_images: bool = True,
        layers: Sequence[int] = LAST,
    ) -> TokenisedReadings:
        segments = self._segments(demonstrations, prompt_format)
        images = self._images.prepare([item.image for item in demonstrations]) if with_images else None
        opening = len(self._prompts.opening(prompt_format)) + (VISUAL_TOKENS if with_images else 0)
        positions = len(segments) * max((opening + len(item.text) for item in segments), default=0)
        given = tuple(demonstrations), prompt_format, with_images, tuple(layers), positions
        return TokenisedReadings(*given, segments=segments, images=images)

    def lengths(self, demonstrations: Sequence[Demonstration], *, prompt_format: PromptFormat) -> list[int]:
        opening = len(self._prompts.opening(prompt_format)) + VISUAL_TOKENS
        return [opening + len(item.text) for item in self._segments(demonstrations, prompt_format)]

    def _segments(self, demonstrations: Sequence[Demonstration], prompt_format: PromptFormat) -> list[PromptSegments]:
        """Tokenise demonstrations; refuse those that do not fit into the context, before their forward."""
        opening, limit = len(self._prompts.opening(prompt_format)) + VISUAL_TOKENS, self._model.lm.spec.context
        found = [self._prompts.demonstration(item, prompt_format) for item in demonstrations]
        for item, segments in zip(demonstrations, found, strict=True):
            if (length := opening + len(segments.text)) > limit:
                raise ContextLengthError(
                    f"{describe(item.image)} with the text {item.text[:60]!r} and the answer {item.answer[:60]!r} "
                    f"takes {length:,} tokens, but pocket's context holds {limit:,}.\n"
                    "Next: shorten the text or the answer."
                )
        return found

    @torch.no_grad()
    def run(self, prepared: PreparedReadings) -> list[Reading]:
        assert isinstance(prepared, TokenisedReadings)
        if not len(prepared):
            return []
        segments, images = prepared.segments, prepared.images
        opening = self._embed(self._prompts.opening(prepared.prompt_format))
        visual: Sequence[Tensor | None] = self._images.run(images) if images else [None] * len(segments)
        texts = [self._embed(item.text) for item in segments]
        rows = [
            _join(opening, text, len(segment.before), tokens)
            for text, segment, tokens in zip(texts, segments, visual, strict=True)
        ]
        lengths = torch.tensor([len(row) for row in rows], device=self._model.device)
        padded = pad_sequence(rows, batch_first=True)  # (batch, longest, embed)
        mask = torch.arange(padded.shape[1], device=self._model.device) < lengths[:, None]
        hidden = self._hidden(padded, mask, prepared.layers)
        return [
            reading_of(segment, text, row[len(opening) : len(prompt)], tokens)
            for segment, text, row, prompt, tokens in zip(segments, texts, hidden, rows, visual, strict=True)
        ]

    @torch.no_grad()
    def text_only(self, demonstrations: Sequence[Demonstration], *, prompt_format: PromptFormat) -> list[FusedTokens]:
        return [FusedTokens(self._embed(item.text)) for item in self._segments(demonstrations, prompt_format)]

    def _hidden(self, padded: Tensor, mask: Tensor, layers: Sequence[int]) -> Tensor:
        lm = self._model.lm
        if tuple(layers) != LAST:
            return side_by_side(lm.states(padded, mask), layers)
        last: Tensor = lm(padded, attention_mask=mask)
        return last

    def _embed(self, ids: list[int]) -> Tensor:
        return self._model.lm.embed(torch.tensor(ids, dtype=torch.long, device=self._model.device))


def _join(opening: Tensor, text: Tensor, image_position: int, visual: Tensor | None) -> Tensor:
    image = [] if visual is None else [visual]
    return torch.cat([opening, text[:image_position], *image, text[image_position:]])
