"""Llama 3.2 Vision."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from aim_backends.hf.backbone import Backbone
from aim_backends.hf.kv_cache import ProbeInputs
from aim_backends.hf.text import BosLayout, Layout


class _WithImage(ProbeInputs):
    sees_states = True

    def __call__(self, tokens: int, states: int) -> Mapping[str, Tensor]:
        hidden = self.config.get_text_config(decoder=True).hidden_size
        seen = torch.empty(1, states, hidden, device="meta", dtype=torch.bfloat16)
        return {**super().__call__(tokens, states), "cross_attention_states": seen}


class Mllama(Backbone):
    """Its processor puts BOS after an image that begins a prompt; here BOS is always first."""

    cross_attends = True
    probe_class = _WithImage

    @property
    def image_states(self) -> int:
        vision = self.model.config.vision_config
        patches = (vision.image_size // vision.patch_size) ** 2 + 1
        return int(vision.max_num_tiles * patches)

    def _layout(self) -> Layout:
        return BosLayout(self.placeholder, self.placeholder, self.tokenizer.bos_token, writes_bos=True)
