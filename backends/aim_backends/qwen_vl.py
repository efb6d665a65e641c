"""Qwen2-VL, Qwen2.5-VL, Qwen3-VL and Qwen3.5."""

from aim_backends.hf import TransformersBackend


class QwenVLBackend(TransformersBackend):
    """Qwen2-VL, Qwen2.5-VL, Qwen3-VL and Qwen3.5."""

    name = "qwen-vl"
    default_model = "Qwen/Qwen2.5-VL-7B-Instruct"
