"""Qwen2-VL, Qwen2.5-VL, Qwen3-VL and Qwen3.5."""

from aim_backends.hf import TransformersBackend


class QwenVLBackend(TransformersBackend):
    """The Qwen-VL family."""

    name = "qwen-vl"
    default_model = "Qwen/Qwen2.5-VL-7B-Instruct"
    model_types = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe")
    # Demonstrations show answers without a thought; so does the answer's place.
    template_options = {"enable_thinking": False}  # noqa: RUF012
