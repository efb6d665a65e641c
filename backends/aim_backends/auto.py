"""Any decoder-only image-text-to-text model of transformers."""

from __future__ import annotations

from typing import ClassVar

from aim_backends.hf import TransformersBackend


class AutoBackend(TransformersBackend):
    """Any decoder-only ``AutoModelForImageTextToText``; a family with a backend of its own gets that one."""

    name = "auto"
    # An untested family may keep state beside its cache: its prompt is computed again for every choice.
    cached: ClassVar[tuple[str, ...]] = (
        "aya_vision",
        "chameleon",
        "cohere2_vision",
        "deepseek_vl",
        "fuyu",
        "gemma3",
        "gemma3n",
        "gemma4",
        "glm46v",
        "glm4v",
        "got_ocr2",
        "internvl",
        "janus",
        "lfm2_vl",
        "llama4",
        "mistral3",
        "ovis2",
        "paligemma",
    )

    @classmethod
    def variant(cls, model_type: str) -> type[TransformersBackend]:
        family = serving(model_type)
        if family is None:
            return cls
        return family if issubclass(family, AutoBackend) else family.variant(model_type)

    @property
    def continues_cache(self) -> bool:
        return self.model.config.model_type in self.cached


def serving(model_type: str) -> type[TransformersBackend] | None:
    """Return the built-in family backend that serves a ``model_type``."""
    from aim_backends.chameleon import ChameleonBackend
    from aim_backends.got import GotOcr2Backend
    from aim_backends.idefics import IdeficsBackend
    from aim_backends.image_first import Blip2Backend, FuyuBackend, Kosmos2Backend, PaliGemmaBackend
    from aim_backends.llava import LlavaBackend
    from aim_backends.mllama import MllamaBackend
    from aim_backends.qwen_vl import QwenVLBackend

    families: list[type[TransformersBackend]] = [
        *(LlavaBackend, QwenVLBackend, IdeficsBackend),
        *(MllamaBackend, ChameleonBackend, PaliGemmaBackend, Kosmos2Backend, Blip2Backend, FuyuBackend, GotOcr2Backend),
    ]
    return next((family for family in families if model_type in family.model_types), None)
