"""Families whose prompt begins with its one image, wherever a format puts it: PaliGemma, Kosmos-2, BLIP-2, Fuyu."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any

import torch
from jaxtyping import Int
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad

from aim_backends.hf.backbone import Backbone
from aim_backends.hf.slots import per_token
from aim_backends.hf.text import Layout, Tokens
from aim_sdk.backend.boxes import Steps
from aim_sdk.errors import ContextLengthError


@dataclass(frozen=True)
class _ImageFirst(Layout):
    """Writes the expansion (an image and BOS) in front of a text without its placeholder."""

    mark: str = field(default="", kw_only=True)
    """What stands for the image in the processor's input."""

    def body(self, text: str) -> str:
        return self.expansion + text.replace(self.placeholder, "")

    def given(self, text: str) -> str:
        return self.mark + text.replace(self.placeholder, "").removesuffix(self.end)


class _ImageFirstBackbone(Backbone):
    """Fused tokens stand after the image and BOS; there is one image, so demonstrations cannot be interleaved."""

    def _placeholder(self) -> str:
        return "<image>"

    most_images = 1

    def _processed(
        self, prompts: Sequence[str], images: Sequence[Sequence[Image.Image]], padding_side: str
    ) -> dict[str, Tensor]:
        """One prompt at a time: some of these processors pad between the image and the text."""
        rows = [
            Backbone._processed(self, [prompt], [shown], padding_side)
            for prompt, shown in zip(prompts, images, strict=True)
        ]
        padded = ["input_ids", "attention_mask", *per_token(rows[0])] if padding_side == "left" else []
        return {name: self._stacked(name, [row[name] for row in rows], name in padded) for name in rows[0]}

    def _stacked(self, name: str, rows: Sequence[Tensor], left: bool) -> Tensor:
        fill = self.pad_token_id if name == "input_ids" else 0
        width = max(row.shape[1] for row in rows)
        gaps = [width - row.shape[1] for row in rows]
        if not any(gaps):
            return torch.cat(list(rows))
        return torch.cat(
            [pad(row, (gap, 0) if left else (0, gap), value=fill) for row, gap in zip(rows, gaps, strict=True)]
        )


class PaliGemma(_ImageFirstBackbone):
    """A prefix LM: a prompt sees all of itself; an answer's tokens, in a reading too, see what comes before them."""

    plain_template = "{image}answer en {text}\n{answer}\n"
    answer_type = 1

    def _layout(self) -> Layout:
        expansion = f"{self.placeholder}{self.tokenizer.bos_token}"
        return _ImageFirst(self.placeholder, expansion, end="\n", mark=self.placeholder, writes_bos=True)


@dataclass(frozen=True)
class _Stripped(_ImageFirst):
    """Kosmos-2's processor strips the text."""

    def __call__(self, text: str) -> str:
        return self.body(text).rstrip()

    def body(self, text: str) -> str:
        return self.expansion + text.replace(self.placeholder, "").lstrip()


class Kosmos2(_ImageFirstBackbone):
    """The ids at an image's places are those of ordinary text: a mask of their own tells them apart."""

    def text_inputs(self, ids: Int[Tensor, "rows tokens"], mask: Int[Tensor, "rows tokens"]) -> dict[str, Tensor]:
        none = torch.zeros(0, 1, self.embedding_size, device=ids.device, dtype=self.model.dtype)
        positions = torch.zeros_like(ids)
        return {
            "input_ids": ids,
            "attention_mask": mask,
            "image_embeds": none,
            "image_embeds_position_mask": positions,
        }

    def box_steps(self, image: Image.Image) -> Steps:
        """The rows of cells that its tokens number."""
        side = math.isqrt(self.processor.num_patch_index_tokens)
        return side, side

    def _layout(self) -> Layout:
        expansion = f"{self.tokenizer.bos_token}{self.placeholder}{self.processor.eoi_token} "
        return _Stripped(self.placeholder, expansion, writes_bos=True)


@dataclass(frozen=True)
class _ApartLayout(_ImageFirst):
    """The expansion as tokens."""

    head: tuple[str, ...]


class _ImageApart(Tokens):
    """The processor tokenises the text by itself and puts the image's tokens before it."""

    layout: _ApartLayout

    def encode(self, prompt: str) -> tuple[list[int], list[tuple[int, int]]]:
        head, width = self.layout.head, len(self.layout.expansion)
        ids, offsets = super().encode(prompt[width:])
        ends = list(accumulate(map(len, head)))
        return (
            [*self._tokenizer.convert_tokens_to_ids(list(head)), *ids],
            [*pairwise([0, *ends]), *((start + width, end + width) for start, end in offsets)],
        )


class Fuyu(_ImageFirstBackbone):
    """Patches in rows, each with a line end; after the text, a mark that hands over to the answer."""

    tokens_class = _ImageApart
    plain_template = "{image}Answer the following VQAv2 question based on the image: {text}<0x04>{answer}\n"

    def _layout(self) -> Layout:
        head = (self.processor.image_token, self.processor.image_newline_token, "<s>")
        return _ApartLayout(self.placeholder, "".join(head), head, end="<0x04>", writes_bos=True)


class Blip2(_ImageFirstBackbone):
    """BLIP-2 and InstructBLIP with a decoder-only LM."""

    tokens_class = _ImageApart

    def _processed(
        self, prompts: Sequence[str], images: Sequence[Sequence[Image.Image]], padding_side: str
    ) -> dict[str, Tensor]:
        """InstructBLIP's Q-Former reads the text, too, and has a context of its own."""
        inputs = super()._processed(prompts, images, padding_side)
        if "qformer_input_ids" in inputs:
            length = inputs["qformer_input_ids"].shape[1]
            if length > (limit := self.model.config.qformer_config.max_position_embeddings):
                longest = max(range(len(prompts)), key=lambda place: len(prompts[place]))
                error = ContextLengthError(
                    f"the text {prompts[longest][:80]!r} takes {length:,} tokens, but {limit:,} fit into this "
                    "backbone's Q-Former.\nNext: shorten it."
                )
                error.query = longest
                raise error
        return inputs

    def text_inputs(self, ids: Int[Tensor, "rows tokens"], mask: Int[Tensor, "rows tokens"]) -> dict[str, Tensor]:
        blank: Any = self.processor.image_processor(Image.new("RGB", (8, 8)), return_tensors="pt")
        inputs = {"input_ids": ids, "attention_mask": mask, **self.moved(blank)}
        if self.model.config.model_type == "instructblip":
            inputs["qformer_input_ids"] = torch.zeros_like(ids[:1, :1])
        return inputs

    def _layout(self) -> Layout:
        return _ApartLayout(self.placeholder, self.placeholder, (self.placeholder,))
