"""Reads demonstrations with llama.cpp."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from aim_backends.llamacpp.context import LlamaContext
from aim_backends.llamacpp.loaded import LoadedModel
from aim_backends.shared.readings import reading_of
from aim_backends.shared.rows import PromptRows
from aim_sdk.backend.prepared import PreparedReadings
from aim_sdk.backend.reader import DemoReader
from aim_sdk.config import PromptFormat
from aim_sdk.errors import ContextLengthError
from aim_sdk.files.images import describe
from aim_sdk.layers import check_there
from aim_sdk.types import Demonstration, FusedTokens, Reading


class LlamaCppReader(DemoReader):
    """One demonstration after the other, in a context of its own: what stands next to it cannot change it."""

    def __init__(self, model: LoadedModel, rows: PromptRows) -> None:
        self._model, self._rows = model, rows

    def lengths(self, demonstrations: Sequence[Demonstration], *, prompt_format: PromptFormat) -> list[int]:
        """In tokens of the text: images take the same number each, in most families."""
        segments = (self._rows.prompts.demonstration(item, prompt_format) for item in demonstrations)
        return [len(item.text) for item in segments]

    @torch.no_grad()
    def run(self, prepared: PreparedReadings) -> list[Reading]:
        given, prompt_format = prepared.demonstrations, prepared.prompt_format
        opening = self._rows.embed(self._rows.prompts.opening(prompt_format))
        segments = [self._rows.prompts.demonstration(item, prompt_format) for item in given]
        images: Sequence[Tensor | None] = [None] * len(given)
        if prepared.with_images:
            images = self._rows.images.encode([item.image for item in given])
        count = self._model.layers
        check_there(prepared.layers, count)
        counted = [layer % (count + 1) for layer in prepared.layers]
        made = []
        for item, segment, image in zip(given, segments, images, strict=True):
            text = self._rows.embed(segment.text)
            before, after = text[: len(segment.before)], text[len(segment.before) :]
            rows = torch.cat([opening, before, *([] if image is None else [image]), after])
            if len(rows) > self._model.context:
                raise ContextLengthError(
                    f"{describe(item.image)} with the text {item.text[:60]!r} and the answer {item.answer[:60]!r} "
                    f"takes {len(rows):,} tokens, but {self._model.title}'s context holds {self._model.context:,}.\n"
                    "Next: shorten the text or the answer."
                )
            inner = [layer for layer in counted if 0 < layer < count]
            with LlamaContext(self._model, 1, len(rows), states=True, layers=inner) as context:
                found = {0: rows, **context.states(0, rows)}
            hidden = torch.cat([found[layer] for layer in counted], -1)[len(opening) :]
            made.append(reading_of(segment, text, hidden, image))
        return made

    @torch.no_grad()
    def text_only(self, demonstrations: Sequence[Demonstration], *, prompt_format: PromptFormat) -> list[FusedTokens]:
        segments = (self._rows.prompts.demonstration(item, prompt_format) for item in demonstrations)
        return [FusedTokens(self._rows.embed(item.text)) for item in segments]
