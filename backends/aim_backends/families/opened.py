"""Families whose model itself opens its answer: to the user, or with the end of a thought."""

from __future__ import annotations

from collections.abc import Sequence

from aim_backends.hf.backbone import Backbone
from aim_backends.hf.prompts import ChatPrompts, Message, PromptRenderer
from aim_sdk.config import PromptFormat


class Opened(Backbone):
    """Muse and MiniMax M3: the place of an answer begins as shown answers do, so none begins with a thought."""

    def _make_prompts(self, prompt_format: PromptFormat) -> PromptRenderer:
        prompts = super()._make_prompts(prompt_format)
        if prompt_format.kind == "plain":
            return prompts
        opening = prompts.answer("x", "x")[0].removesuffix("x")

        def render(messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
            text = self._rendered(messages, add_generation_prompt=add_generation_prompt)
            return f"{text}{opening}" if add_generation_prompt else text

        return ChatPrompts(prompt_format, render, self.placeholder)
