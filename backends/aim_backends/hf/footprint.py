"""What a prompt of a transformers model takes, from its configuration and its processor alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache

from aim_backends.hf.backbone import Backbone
from aim_backends.hf.kv_cache import KVSizes, kv_sizes, skeleton
from aim_backends.hf.reader import TransformersReader
from aim_backends.hf.tap import lm_head
from aim_backends.hf.writing import PromptWriter
from aim_sdk.backend.footprint import Footprint, ModelSizes
from aim_sdk.config import PromptFormat
from aim_sdk.files.images import image_size
from aim_sdk.types import Demonstration, Query


class TransformersFootprint(Footprint):
    """Counts as the reader and the injector write prompts, and the cache as the decoder's code fills it.

    Args:
        backbone: loaded, or with a model on the meta device.
        device, dtype: where and in what precision the model would run.
        weights_bytes: of its weights in memory, if known.
    """

    def __init__(self, backbone: Backbone, device: torch.device, dtype: torch.dtype, weights_bytes: int | None) -> None:
        self.backbone, self._dtype = backbone, dtype
        self._reader, self._writer = TransformersReader(backbone), PromptWriter(backbone)
        super().__init__(
            ModelSizes(
                model=backbone.source,
                device=device,
                dtype=dtype,
                weights_bytes=weights_bytes,
                context_length=backbone.context_length,
                most_images=backbone.most_images,
                embedding_size=backbone.embedding_size,
                hidden_size=int(lm_head(backbone.model).weight.shape[1]),
                default_format=backbone.default_format,
                uncounted=tuple(backbone.uncached),
            )
        )

    def text_tokens(self, demonstrations: Sequence[Demonstration], *, prompt_format: PromptFormat) -> list[int]:
        found = self._reader.text_ids(demonstrations, prompt_format=prompt_format)
        return [len(ids) for ids in found]

    def prompt_tokens(self, query: Query, shown: Sequence[Demonstration], *, prompt_format: PromptFormat) -> int:
        backbone = self.backbone
        sizes = [image_size(image) for image in (*(item.image for item in shown), query.image)]
        with backbone.processor_lock:
            text = self._writer.text(backbone.prompts(prompt_format), shown, query)
            ids, _ = backbone.tokens.encode(backbone.tokens.layout(text))
            return len(ids) + sum(backbone.visual.exact(size, several=bool(shown)) for size in sizes)

    def kv_bytes(self, tokens: int, images: int) -> int | None:
        if self._kv is None:
            return None
        return self._kv.bytes(tokens, images * self.backbone.image_states, self._dtype)

    @cached_property
    def _kv(self) -> KVSizes | None:
        model = self.backbone.model
        try:
            inputs = self.backbone.probe_class(model.config)
            return kv_sizes(model if model.device.type == "meta" else skeleton(model.config), inputs)
        except Exception:  # a decoder that computes with numbers, not shapes alone
            return None


def weights_bytes(model: Any, dtype: torch.dtype, source: str) -> int | None:
    """Bytes of a model's weights in memory: of its parameters, or of its files if they are quantised."""
    if getattr(model.config, "quantization_config", None) is None:
        numbers: int = sum(parameter.numel() for parameter in model.parameters())
        return numbers * dtype.itemsize
    folder = Path(source)
    if not folder.is_dir():
        found = try_to_load_from_cache(source, "config.json")
        if not isinstance(found, str):
            return None
        folder = Path(found).parent
    return sum(file.stat().st_size for file in folder.glob("*.safetensors")) or None
