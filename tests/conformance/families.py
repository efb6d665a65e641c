"""A tiny backbone of each family, as a backend and as the plain model of transformers to compare it with."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoProcessor

from aim_backends.auto import AutoBackend
from aim_backends.hf import TransformersBackend
from aim_backends.hf.families import NOTES
from aim_backends.idefics import IdeficsBackend
from aim_backends.llava import LlavaBackend
from aim_backends.qwen_vl import QwenVLBackend
from aim_sdk import Demonstration, FusedTokens, PromptFormat, Query

BACKENDS: dict[str, type[TransformersBackend]] = {
    **dict.fromkeys(["llava-1.5", "llava-next", "llava-onevision", "vipllava"], LlavaBackend),
    **dict.fromkeys(["qwen2-vl", "qwen2.5-vl", "qwen3-vl", "qwen3-vl-moe", "qwen3.5"], QwenVLBackend),
    **dict.fromkeys(["idefics", "idefics2", "idefics3", "smolvlm"], IdeficsBackend),
    **dict.fromkeys(["internvl", "gemma3", "aya-vision"], AutoBackend),
    **dict.fromkeys(
        ["mistral3", "cohere2-vision", "lfm2-vl", "llama4", "glm4v", "ovis2", "glm46v", "deepseek-vl"], AutoBackend
    ),
}

SKIPS: dict[tuple[str, str], str] = {
    ("llama4", "test_true_embeddings_give_the_plain_answers[llama4-3]"): NOTES["llama4"],
}
"""What a family cannot do by construction: (variant, test) -> why."""


def picture(width: int, height: int, turn: int) -> Image.Image:
    return Image.linear_gradient("L").resize((width, height)).convert("RGB").rotate(turn)


DEMONSTRATIONS = (
    Demonstration(picture(40, 50, 0), "What colour is it?", "red"),
    Demonstration(picture(64, 40, 90), "Which animal is this? A lynx, or a fox?", "It is a lynx."),
    Demonstration(picture(30, 30, 180), "", "a black cat"),
)
QUERIES = (
    Query(picture(50, 50, 45), "What is this?"),
    Query(picture(64, 32, 20), "How many people are in the picture, and what are they doing there?"),
    Query(picture(32, 64, 70), "And this?"),
)


@dataclass(frozen=True)
class Family:
    """One tiny backbone."""

    variant: str
    folder: Path
    backend: TransformersBackend
    plain: Any
    """The same weights without a hook."""

    @property
    def form(self) -> PromptFormat:
        return self.backend.default_format

    @cached_property
    def processor(self) -> Any:
        return AutoProcessor.from_pretrained(self.folder)

    def text_only(self, *places: int) -> list[FusedTokens]:
        chosen = [DEMONSTRATIONS[place] for place in places]
        return self.backend.reader.text_only(chosen, prompt_format=self.form)

    def true_inputs(self, prepared: Any, contexts: list[list[int]]) -> dict[str, Tensor]:
        """Inputs for the plain model: the true ids of the demonstrations' texts where the slots are."""
        readings = self.backend.reader.read(DEMONSTRATIONS, prompt_format=self.form)
        inputs = {**prepared.inputs, "input_ids": prepared.inputs["input_ids"].clone()}
        for row, places in zip(inputs["input_ids"], contexts, strict=True):
            if places:
                row[row == self.backend.slot] = torch.cat([readings[place].token_ids for place in places])
        return inputs
