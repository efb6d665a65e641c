"""The backbone without reader and injector: what the conformance kit compares them with, and prompts for people."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from aim_backends.hf.blame import naming_the_image
from aim_backends.hf.slots import insert_slots
from aim_sdk.config import PromptFormat
from aim_sdk.errors import CapabilityError
from aim_sdk.files.images import load_image
from aim_sdk.types import Demonstration, Query

if TYPE_CHECKING:
    from aim_backends.hf.backbone import Backbone
    from aim_backends.hf.writing import Prepared


@torch.no_grad()
def plain_answer(
    backbone: Backbone,
    query: Query,
    interleaved: Sequence[Demonstration],
    text_ids: Sequence[Tensor],
    prompt_format: PromptFormat,
    max_new_tokens: int,
) -> list[int]:
    """What the model's own `generate` makes of the processor's own output.

    Demonstrations with images are one conversation. Without them they are given as token ids (`text_ids`): as one
    string, a tokenizer would join the texts on the two sides of an image.
    """
    if interleaved and backbone.most_images == 1:
        raise CapabilityError(f"a prompt of {backbone.model.config.model_type!r} holds one image.")
    images = [*(item.image for item in interleaved), query.image]
    texts = [(item.text, item.answer) for item in interleaved]
    with naming_the_image(backbone, [images]), backbone.lock:
        backbone.check_text([query.text, *(text for pair in texts for text in pair)])
        prompt = backbone.prompts(prompt_format).whole(texts, query.text)
        inputs = backbone.process([prompt], [[load_image(image) for image in images]], padding_side="left")
        if text_ids:
            inputs = _with_text(backbone, inputs, prompt, torch.cat(list(text_ids)), prompt_format)
        ids = backbone.generate(**inputs, do_sample=False, num_beams=1, max_new_tokens=max_new_tokens)
    return list(ids[0, inputs["input_ids"].shape[1] :].tolist())


def _with_text(
    backbone: Backbone,
    inputs: dict[str, Tensor],
    prompt: str,
    ids: Tensor,
    prompt_format: PromptFormat,
) -> dict[str, Tensor]:
    """Put the demonstrations' own token ids after the prompt's prefix."""
    prefix = backbone.prompts(prompt_format).prefix
    head = backbone.tokens.prefix_length(prefix, prompt, inputs["input_ids"][0].tolist())
    written = insert_slots(inputs, [len(ids)], [head], slot=backbone.slot, pad=backbone.pad_token_id)
    row = written["input_ids"][0]
    row[row == backbone.slot] = ids.to(backbone.device)
    return written


def show_prompt(backbone: Backbone, prepared: Prepared) -> str:
    """A prompt's tokens as text, with counts for fused and visual ones."""
    kinds = {backbone.slot: "fused", **dict.fromkeys(backbone.image_ids, "image")}
    runs = [(kind, list(run)) for kind, run in groupby(prepared.inputs["input_ids"][0].tolist(), kinds.get)]
    return "".join(backbone.tokenizer.decode(run) if kind is None else f"<{kind} x {len(run)}>" for kind, run in runs)
