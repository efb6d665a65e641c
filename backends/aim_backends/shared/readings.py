"""From the states of one demonstration's forward to its reading."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from aim_backends.shared.segments import PromptSegments
from aim_sdk.types import Reading


def reading_of(
    segments: PromptSegments,
    text: Float[Tensor, "tokens embed"],
    hidden: Float[Tensor, "positions hidden"],
    visual: Float[Tensor, "visual embed"] | None,
) -> Reading:
    """A demonstration's reading: the states of its text tokens.

    Args:
        segments: its tokens round the image.
        text: their embeddings.
        hidden: the states of text and image, in their order.
        visual: the image's embeddings; None if it was not shown.
    """
    before = len(segments.before)
    skipped = 0 if visual is None else len(visual)
    return Reading(
        token_ids=torch.tensor(segments.text, device=text.device),
        hidden=torch.cat([hidden[:before], hidden[before + skipped :]]),
        embeddings=text,
        image_position=before,
        answer_start=before + len(segments.after),
        visual=None if visual is None else visual.mean(0),
    )
