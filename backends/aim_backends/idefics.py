"""Idefics 1, 2 and 3 and SmolVLM."""

from aim_backends.hf import TransformersBackend


class IdeficsBackend(TransformersBackend):
    """Idefics 1, 2 and 3 and SmolVLM."""

    name = "idefics"
    default_model = "HuggingFaceM4/idefics2-8b"
