"""ERNIE 4.5 VL."""

from __future__ import annotations

import re
from typing import Any

from aim_backends.hf.backbone import Backbone
from aim_backends.hf.prompts import ChatPrompts, PromptRenderer
from aim_sdk.config import PromptFormat

_NUMBER = re.compile(r"(?<=Picture )\d+(?=:<\|IMAGE_START\|>)")


class Ernie(Backbone):
    """Its template numbers the pictures of a conversation: here each is the first one, wherever it stands."""

    def _make_prompts(self, prompt_format: PromptFormat) -> PromptRenderer:
        if prompt_format.kind == "plain" or not self._chat_template:
            return super()._make_prompts(prompt_format)
        return ChatPrompts(prompt_format, self._rendered)

    def _rendered(self, messages: list[dict[str, Any]], **options: Any) -> str:
        written = self.processor.apply_chat_template(messages, tokenize=False, enable_thinking=False, **options)
        return _NUMBER.sub("1", written)
