"""Chameleon."""

from __future__ import annotations

from functools import cached_property

from aim_backends.hf.backbone import Backbone
from aim_sdk.config import PromptFormat


class Chameleon(Backbone):
    """Its processor ends every prompt with the mark that hands over to the answer; there is no chat template."""

    @cached_property
    def default_format(self) -> PromptFormat:
        mark = self.tokenizer.sep_token
        return PromptFormat.plain(f"{{image}}{{text}}{mark}{{answer}}{mark}")
