"""The Qwen-VL families."""

from __future__ import annotations

from aim_backends.hf.backbone import Backbone


class QwenVL(Backbone):
    """Demonstrations show answers without a thought; so does the answer's place."""

    template_options = {"enable_thinking": False}  # noqa: RUF012
