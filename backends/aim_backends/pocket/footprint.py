"""What a prompt of pocket takes; its texts are tokenised as the prompt has them, and an image is always as long."""

from __future__ import annotations

from collections.abc import Sequence

from aim_backends.pocket.model import DEFAULT_FORMAT, PocketModel
from aim_backends.pocket.vision import VISUAL_TOKENS
from aim_backends.shared.segments import PromptSegments, SegmentWriter
from aim_sdk.backend.footprint import Footprint, ModelSizes
from aim_sdk.config import PromptFormat
from aim_sdk.types import Demonstration, Query


class PocketFootprint(Footprint):
    """Of the loaded model: it is small, and its tokenizer comes with its weights."""

    def __init__(self, name: str, model: PocketModel, prompts: SegmentWriter) -> None:
        self._prompts, self._spec = prompts, model.lm.spec
        parts = (model.vision.trunk, model.vision.connector, model.lm)
        weight = model.lm.embed_tokens.weight
        super().__init__(
            ModelSizes(
                model=name,
                device=model.device,
                dtype=weight.dtype,
                weights_bytes=sum(parameter.nbytes for part in parts for parameter in part.parameters()),
                context_length=self._spec.context,
                most_images=None,
                embedding_size=self._spec.hidden,
                hidden_size=self._spec.hidden,
                default_format=DEFAULT_FORMAT,
            )
        )

    def text_tokens(self, demonstrations: Sequence[Demonstration], *, prompt_format: PromptFormat) -> list[int]:
        return [_length(self._prompts.demonstration(item, prompt_format)) for item in demonstrations]

    def prompt_tokens(self, query: Query, shown: Sequence[Demonstration], *, prompt_format: PromptFormat) -> int:
        texts = sum(self.text_tokens(shown, prompt_format=prompt_format))
        asked = _length(self._prompts.query(query, prompt_format))
        return len(self._prompts.opening(prompt_format)) + texts + asked + VISUAL_TOKENS * (len(shown) + 1)

    def kv_bytes(self, tokens: int, images: int) -> int:
        spec = self._spec
        return 2 * spec.layers * spec.key_value_heads * spec.head_size * tokens * self.sizes.dtype.itemsize


def _length(segments: PromptSegments) -> int:
    return len(segments.before) + len(segments.after) + len(segments.answer)
