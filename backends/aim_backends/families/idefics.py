"""Idefics 1 and 2; Idefics 3 and SmolVLM need nothing of their own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from PIL.Image import Image
from torch import Tensor
from transformers.models.idefics import processing_idefics

from aim_backends.hf.backbone import Backbone
from aim_backends.hf.kv_cache import ProbeInputs
from aim_backends.hf.text import Layout
from aim_sdk.config import PromptFormat
from aim_sdk.errors import FormatError


@dataclass(frozen=True)
class _SpacedLayout(Layout):
    """Idefics 2's processor puts a blank between an image and a word that touches it."""

    fake: str

    def body(self, text: str) -> str:
        return re.sub(rf"{re.escape(self.fake)}(?=[^\s<])", f"{self.fake} ", super().body(text))


class Idefics2(Backbone):
    def _layout(self) -> Layout:
        layout = super()._layout()
        return _SpacedLayout(layout.placeholder, layout.expansion, self.processor.fake_image_token)


@dataclass(frozen=True)
class _StrippedLayout(Layout):
    """Idefics 1's processor writes BOS itself and strips the blanks around an image."""

    bos: str

    def body(self, text: str) -> str:
        return self.bos + self.expansion.join(part.strip(" ") for part in text.split(self.placeholder))


class _WithImage(ProbeInputs):
    """Embeddings instead of ids, which its code compares with numbers, and a state of an image."""

    def __call__(self, tokens: int, states: int) -> Mapping[str, Tensor]:
        def blank(*shape: int) -> Tensor:
            return torch.empty(*shape, device="meta", dtype=torch.bfloat16)

        seen = "perceiver_embeddings" if self.config.use_resampler else "image_encoder_embeddings"
        mask = torch.ones(1, tokens, dtype=torch.long, device="meta")
        return {
            "inputs_embeds": blank(1, tokens, self.config.hidden_size),
            "attention_mask": mask,
            seen: blank(1, 1, 1, self.config.vision_config.embed_dim),
            "image_attention_mask": mask[..., None],
        }


class Idefics1(Backbone):
    """Images enter through cross-attention: its mask and the image states go with every forward."""

    cross_attends = True
    probe_class = _WithImage
    uncached = ("the states of the images, which enter through cross-attention, are not counted in the KV bytes",)

    def _placeholder(self) -> str:
        return "<image>"

    plain_template = "User:{image}{text}\nAssistant: {answer}\n"

    @cached_property
    def default_format(self) -> PromptFormat:
        turn = "<end_of_utterance>"
        if turn not in self.tokenizer.get_vocab():
            return super().default_format
        return PromptFormat.plain(f"User:{{image}}{{text}}{turn}\nAssistant: {{answer}}{turn}\n")

    @property
    def input_embeddings(self) -> Float[Tensor, "vocabulary embed"]:
        module = self.model.get_input_embeddings()
        return torch.cat([module.weight, module.additional_embedding.weight])

    @property
    def output_embeddings(self) -> Float[Tensor, "vocabulary hidden"]:
        head = self.model.get_output_embeddings()
        return torch.cat([head.weight, head.additional_fc.weight])

    @property
    def rows(self) -> int:
        module = self.model.get_input_embeddings()
        return int(module.num_embeddings + module.num_additional_embeddings)

    def _processed(
        self, prompts: Sequence[str], images: Sequence[Sequence[Image]], padding_side: str
    ) -> dict[str, Tensor]:
        is_url: Any = processing_idefics.is_url
        rows = []
        for prompt, shown in zip(prompts, images, strict=True):
            parts = prompt.split(self.placeholder)
            if address := next((part for part in parts if is_url(part.strip(" "))), None):
                raise FormatError(f"the text {address[:80]!r} reads as an address, which this processor would open.")
            row: list[Any] = [parts[0]]
            for image, part in zip(shown, parts[1:], strict=True):
                row += [image, part]
            rows.append(row)
        return self.moved(self.processor(text=rows, padding=True, padding_side=padding_side, return_tensors="pt"))

    def text_inputs(self, ids: Int[Tensor, "rows tokens"], mask: Int[Tensor, "rows tokens"]) -> dict[str, Tensor]:
        blank = torch.zeros(len(ids), 1, *self.processor.default_image_dims, device=ids.device, dtype=self.model.dtype)
        return {
            "input_ids": ids,
            "attention_mask": mask,
            "pixel_values": blank,
            "image_attention_mask": torch.zeros_like(ids)[..., None],
        }

    def continuation_inputs(
        self, inputs: Mapping[str, Tensor], prompt: Any, rows: int, tokens: int
    ) -> dict[str, Tensor]:
        mask = {"image_attention_mask": inputs["image_attention_mask"][:, -1:].repeat(rows, tokens, 1)}
        if (encoded := getattr(prompt, "image_outputs", None)) is not None:  # transformers 5.24
            return mask | {"image_encoder_embeddings": encoded.last_hidden_state.repeat(rows, 1, 1)}
        states = "perceiver_embeddings" if self.model.config.use_resampler else "image_encoder_embeddings"
        return mask | {states: prompt.image_hidden_states.repeat(rows, 1, 1, 1)}

    def _layout(self) -> Layout:
        fake = "<fake_token_around_image>"
        return _StrippedLayout(self.placeholder, f"{fake}{self.placeholder}{fake}", str(self.tokenizer.bos_token))
