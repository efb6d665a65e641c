"""What a prompt of a GGUF model takes; its texts and images are cut into tokens as the prompt has them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from aim_backends.llamacpp.loaded import LoadedModel
from aim_backends.shared.rows import PromptRows
from aim_sdk.backend.footprint import Footprint, ModelSizes
from aim_sdk.config import PromptFormat
from aim_sdk.types import Demonstration, Query


class LlamaCppFootprint(Footprint):
    """Of the loaded model: its file is mapped into memory, not read.

    Args:
        model: the loaded model.
        rows: its prompts.
        default_format: of the backend.
    """

    def __init__(self, model: LoadedModel, rows: PromptRows, default_format: PromptFormat) -> None:
        numbers = model.kv_numbers
        self._rows, self._per_token = rows, None if numbers is None else numbers * model.runtime.dtype.itemsize
        matrix = model.vocabulary_size * model.hidden_size * torch.float32.itemsize  # the embeddings, out of the file
        super().__init__(
            ModelSizes(
                model=model.file.path.name,
                device=torch.device("cpu"),
                dtype=torch.float32,
                weights_bytes=model.file.path.stat().st_size + matrix,
                context_length=model.context,
                most_images=None,
                embedding_size=model.hidden_size,
                hidden_size=model.hidden_size,
                default_format=default_format,
            )
        )

    def text_tokens(self, demonstrations: Sequence[Demonstration], *, prompt_format: PromptFormat) -> list[int]:
        return [len(self._rows.prompts.demonstration(item, prompt_format).text) for item in demonstrations]

    def prompt_tokens(self, query: Query, shown: Sequence[Demonstration], *, prompt_format: PromptFormat) -> int:
        prompts, images = self._rows.prompts, [*(item.image for item in shown), query.image]
        texts = sum(self.text_tokens(shown, prompt_format=prompt_format))
        asked = len(prompts.query(query, prompt_format).text)
        return len(prompts.opening(prompt_format)) + texts + asked + sum(map(self._rows.images.count, images))

    def kv_bytes(self, tokens: int, images: int) -> int | None:
        return None if self._per_token is None else self._per_token * tokens
