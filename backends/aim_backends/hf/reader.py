"""Reads demonstrations with a transformers backbone: the last hidden states on top of each one's text tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from aim_backends.hf.tap import recording
from aim_backends.hf.text import TextTokens
from aim_sdk.config import PromptFormat
from aim_sdk.images import load_image
from aim_sdk.interfaces import DemoReader
from aim_sdk.types import Demonstration, FusedTokens, Reading

if TYPE_CHECKING:
    from aim_backends.hf.backend import TransformersBackend


class TransformersReader(DemoReader):
    """Reads a batch in one forward, padded on the right so that every demonstration starts where it starts alone."""

    def __init__(self, backend: TransformersBackend) -> None:
        self._backend = backend

    @torch.no_grad()
    def read(
        self, demonstrations: Sequence[Demonstration], *, prompt_format: PromptFormat, with_images: bool = True
    ) -> list[Reading]:
        if not demonstrations:
            return []
        backend = self._backend
        with backend.lock:
            tokens, prompts = self._tokens(demonstrations, prompt_format)
            if with_images:
                images = [[load_image(demonstration.image)] for demonstration in demonstrations]
                inputs = backend.process(prompts, images, padding_side="right")
                rows = [
                    ids[mask.bool()].tolist()
                    for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
                ]
                places = [backend.tokens.expanded_places(t, row) for t, row in zip(tokens, rows, strict=True)]
                if backend.answer_type:  # a prefix LM: what stands before the answer must not see it
                    for row, (t, where) in enumerate(zip(tokens, places, strict=True)):
                        inputs["token_type_ids"][row, where[t.answer_start] :] = backend.answer_type
            else:
                inputs = self._text_inputs(tokens)
                places = [list(range(len(t.prefix_ids), len(t.prefix_ids) + len(t.ids))) for t in tokens]
            with recording() as record:
                backend.model(**inputs, use_cache=False)
            embeddings = [backend.embed(t.ids) for t in tokens]
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
        with backend.lock:
            tokens, _ = self._tokens(demonstrations, prompt_format)
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
