"""Any decoder-only image-text-to-text model of transformers."""

from __future__ import annotations

from aim_backends.families.table import family_of
from aim_backends.hf import TransformersBackend
from aim_backends.idefics import IdeficsBackend
from aim_backends.llava import LlavaBackend
from aim_backends.qwen_vl import QwenVLBackend


class AutoBackend(TransformersBackend):
    """Any decoder-only ``AutoModelForImageTextToText``; a family with a backend of its own gets that one."""

    name = "auto"

    @classmethod
    def serving(cls, model_type: str) -> type[TransformersBackend]:
        named = {backend.name: backend for backend in (LlavaBackend, QwenVLBackend, IdeficsBackend)}
        return named.get(family_of(model_type).backend, cls)
