"""Reads demonstrations with a transformers backbone: the last hidden states on top of each one's text tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from aim_backends.hf.tap import recording
from aim_backends.hf.text import TextTokens
from aim_sdk.config import PromptFormat
from aim_sdk.images import image_size, load_image
from aim_sdk.interfaces import DemoReader
from aim_sdk.types import Demonstration, FusedTokens, Reading

if TYPE_CHECKING:
    from aim_backends.hf.backend import TransformersBackend


class TransformersReader(DemoReader):
    """Reads a batch in one forward, padded on the right so that every demonstration starts where it starts alone."""

    def __init__(self, backend: TransformersBackend) -> None:
        self._backend = backend

    def read(
        self, demonstrations: Sequence[Demonstration], *, prompt_format: PromptFormat, with_images: bool = True
    ) -> list[Reading]:
        return self.prepare(demonstrations, prompt_format=prompt_format, with_images=with_images)()

    def prepare(
        self, demonstrations: Sequence[Demonstration], *, prompt_format: PromptFormat, with_images: bool = True
    ) -> Callable[[], list[Reading]]:
        if not demonstrations:
            return list
        backend = self._backend
        images = [[load_image(demonstration.image)] for demonstration in demonstrations] if with_images else []
        with backend.processor_lock:
            tokens, prompts = self._tokens(demonstrations, prompt_format)
            if not with_images:
                inputs = self._text_inputs(tokens)
                places = [list(range(len(t.prefix_ids), len(t.prefix_ids) + len(t.ids))) for t in tokens]
                if backend.answer_type:
                    inputs["token_type_ids"] = torch.zeros_like(inputs["input_ids"])
                return self._ready(inputs, tokens, places)
            inputs = backend.process(prompts, images, padding_side="right")
        lengths = inputs["attention_mask"].sum(1).tolist()
        rows = [row[:length] for row, length in zip(inputs["input_ids"].tolist(), lengths, strict=True)]
        places = [backend.tokens.expanded_places(t, row) for t, row in zip(tokens, rows, strict=True)]
        return self._ready(inputs, tokens, places)

    def _ready(
        self, inputs: dict[str, Tensor], tokens: Sequence[TextTokens], places: Sequence[Sequence[int]]
    ) -> Callable[[], list[Reading]]:
        answer_type = self._backend.answer_type
        if answer_type:  # a prefix LM: what stands before the answer must not see it, nor the padding behind it
            for row, (t, where) in enumerate(zip(tokens, places, strict=True)):
                inputs["token_type_ids"][row, where[t.answer_start] :] = answer_type
        return partial(self._forward, inputs, tokens, places)

    def lengths(self, demonstrations: Sequence[Demonstration], *, prompt_format: PromptFormat) -> list[int]:
        """Text tokens, and visual tokens as the processor counts them (of the first image's kind, where it cannot)."""
        with self._backend.processor_lock:
            tokens, _ = self._tokens(demonstrations, prompt_format)
            visual = self._backend.visual_tokens([image_size(item.image) for item in demonstrations])
        return [len(t.prefix_ids) + len(t.ids) + count for t, count in zip(tokens, visual, strict=True)]

    @torch.no_grad()
    def _forward(
        self, inputs: dict[str, Tensor], tokens: Sequence[TextTokens], places: Sequence[Sequence[int]]
    ) -> list[Reading]:
        backend = self._backend
        with backend.lock:
            with recording() as record:
                backend.model(**inputs, use_cache=False)
            embedded = backend.embed([index for t in tokens for index in t.ids])
        embeddings = torch.split(embedded, [len(t.ids) for t in tokens])
        hidden = record.hidden[-1]
        return [
            Reading(
                token_ids=torch.tensor(t.ids),
                hidden=hidden[row, torch.tensor(where, device=hidden.device)],
                embeddings=embedding,
                image_position=t.image_position,
                answer_start=t.answer_start,
            )
            for row, (t, where, embedding) in enumerate(zip(tokens, places, embeddings, strict=True))
        ]

    @torch.no_grad()
    def text_only(self, demonstrations: Sequence[Demonstration], *, prompt_format: PromptFormat) -> list[FusedTokens]:
        backend = self._backend
        with backend.processor_lock:
            tokens, _ = self._tokens(demonstrations, prompt_format)
        with backend.lock:
            return [FusedTokens(backend.embed(t.ids)) for t in tokens]

    def _tokens(
        self, demonstrations: Sequence[Demonstration], prompt_format: PromptFormat
    ) -> tuple[list[TextTokens], list[str]]:
        backend = self._backend
        prompts = backend.prompts(prompt_format)
        backend.check_text([text for d in demonstrations for text in (d.text, d.answer)])
        pieces = [prompts.demonstration(d.text, d.answer) for d in demonstrations]
        tokens = [backend.tokens.demonstration(prompts, piece) for piece in pieces]
        return tokens, [prompts.prefix + piece.text for piece in pieces]

    def _text_inputs(self, tokens: Sequence[TextTokens]) -> dict[str, Tensor]:
        rows = [torch.tensor([*t.prefix_ids, *t.ids]) for t in tokens]
        ids = pad_sequence(rows, batch_first=True, padding_value=self._backend.pad_token_id)
        mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        return self._backend.text_inputs(ids.to(self._backend.device), mask.to(self._backend.device))
