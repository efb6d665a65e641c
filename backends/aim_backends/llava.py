"""LLaVA-1.5, LLaVA-NeXT, LLaVA-OneVision and VipLLaVA."""

from aim_backends.hf import TransformersBackend


class LlavaBackend(TransformersBackend):
    """LLaVA-1.5, LLaVA-NeXT, LLaVA-OneVision and VipLLaVA."""

    name = "llava"
    default_model = "llava-hf/llava-1.5-7b-hf"
