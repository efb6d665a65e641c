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
from aim_sdk.types import Context, Demonstration, Query

if TYPE_CHECKING:
    from aim_backends.hf.backend import TransformersBackend


@torch.no_grad()
def plain_answer(
    backend: TransformersBackend,
    query: Query,
    demonstrations: Sequence[Demonstration],
    prompt_format: PromptFormat,
    max_new_tokens: int,
    *,
    with_images: bool,
) -> list[int]:
    """What the model's own `generate` makes of the processor's own output.

    Demonstrations with images are one conversation. Without them they are written as token ids: as one string, a
    tokenizer would join what stands on the two sides of an image.
    """
    interleaved = list(demonstrations) if with_images else []
    if interleaved and not backend.supports_interleaved:
        raise CapabilityError(f"{backend.model.config.model_type!r} takes one image a prompt.")
    images = [*(item.image for item in interleaved), query.image]
    texts = [(item.text, item.answer) for item in interleaved]
    with naming_the_image(backend, [images]), backend.lock:
        backend.check_text([query.text, *(text for pair in texts for text in pair)])
        prompt = backend.prompts(prompt_format).whole(texts, query.text)
        inputs = backend.process([prompt], [[load_image(image) for image in images]], padding_side="left")
        if demonstrations and not with_images:
            inputs = _with_text(backend, inputs, prompt, demonstrations, prompt_format)
        ids = backend.model.generate(**inputs, do_sample=False, num_beams=1, max_new_tokens=max_new_tokens)
    return list(ids[0, inputs["input_ids"].shape[1] :].tolist())


def _with_text(
    backend: TransformersBackend,
    inputs: dict[str, Tensor],
    prompt: str,
    demonstrations: Sequence[Demonstration],
    prompt_format: PromptFormat,
) -> dict[str, Tensor]:
    """Put the demonstrations' own token ids behind the prompt's prefix."""
    prefix = backend.prompts(prompt_format).prefix
    head = backend.tokens.prefix_length(prefix, prompt, inputs["input_ids"][0].tolist())
    ids = torch.cat(backend.reader.text_ids(demonstrations, prompt_format=prompt_format)).to(backend.device)
    written = insert_slots(inputs, [len(ids)], [head], slot=backend.slot, pad=backend.pad_token_id)
    row = written["input_ids"][0]
    row[row == backend.slot] = ids
    return written


def show_prompt(backend: TransformersBackend, query: Query, context: Context, prompt_format: PromptFormat) -> str:
    """A prompt's tokens as text, fused and visual ones as their number."""
    inputs = backend.injector.prepare([query], [context], prompt_format=prompt_format).inputs
    kinds = {backend.slot: "fused", **dict.fromkeys(backend.image_ids, "image")}
    runs = [(kind, list(run)) for kind, run in groupby(inputs["input_ids"][0].tolist(), kinds.get)]
    return "".join(backend.tokenizer.decode(run) if kind is None else f"<{kind} x {len(run)}>" for kind, run in runs)
