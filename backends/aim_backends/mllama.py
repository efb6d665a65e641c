"""Llama 3.2 Vision."""

from __future__ import annotations

from typing import ClassVar

from aim_backends.auto import AutoBackend
from aim_backends.hf.text import BosLayout, Layout


class MllamaBackend(AutoBackend):
    """Its processor puts BOS behind an image that begins a prompt; here BOS is always first."""

    model_types: ClassVar[tuple[str, ...]] = ("mllama",)

    def _layout(self) -> Layout:
        return BosLayout(self.placeholder, self.placeholder, self.tokenizer.bos_token, writes_bos=True)
