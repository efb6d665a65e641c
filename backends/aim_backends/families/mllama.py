"""Llama 3.2 Vision."""

from __future__ import annotations

from aim_backends.hf.backbone import Backbone
from aim_backends.hf.text import BosLayout, Layout


class Mllama(Backbone):
    """Its processor puts BOS after an image that begins a prompt; here BOS is always first."""

    cross_attends = True

    def _layout(self) -> Layout:
        return BosLayout(self.placeholder, self.placeholder, self.tokenizer.bos_token, writes_bos=True)
