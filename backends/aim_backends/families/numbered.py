"""Families whose template numbers the images of a conversation: here each is the first one, wherever it stands."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from aim_backends.hf.backbone import Backbone
from aim_backends.hf.prompts import Message

_ERNIE: Final = re.compile(r"(?<=Picture )\d+(?=:<\|IMAGE_START\|>)")
_CLOVA: Final = re.compile(r'(?<=<\|mime_start\|>\{"id": "image_)\d+')


class Ernie(Backbone):
    """ERNIE 4.5 VL counts from 1."""

    def _rendered(self, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
        return _ERNIE.sub("1", super()._rendered(messages, add_generation_prompt=add_generation_prompt))


class HyperClovaX(Backbone):
    """HyperCLOVA X counts from 00."""

    def _rendered(self, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
        return _CLOVA.sub("00", super()._rendered(messages, add_generation_prompt=add_generation_prompt))
