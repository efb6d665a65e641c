"""HunyuanVL."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from aim_backends.hf.backbone import Backbone
from aim_backends.hf.roles import SpecialTokens


class HunyuanVL(Backbone):
    """Its positions number a prompt's images; transformers 5.23 goes on counting from row to row of a batch."""

    def __init__(self, model: Any, processor: Any, source: str, special_tokens: SpecialTokens = "refuse") -> None:
        super().__init__(model, processor, source, special_tokens)
        number_in_each_prompt(model)


def number_in_each_prompt(model: Any) -> None:
    """Begin to count images anew in each row of a batch."""
    model.model.get_rope_index = partial(_each_row, model.model.get_rope_index)


def _each_row(
    positions: Callable[..., tuple[Tensor, Tensor]],
    input_ids: Tensor,
    mm_token_type_ids: Tensor,
    image_grid_thw: Tensor | None = None,
    attention_mask: Tensor | None = None,
    **options: Any,
) -> tuple[Tensor, Tensor]:
    """The positions of a batch, each row's computed alone."""
    found, first = [], 0
    for row, kinds in enumerate(mm_token_type_ids.tolist()):
        last = first + sum(kind == 1 for kind, _ in groupby(kinds))
        grids = None if image_grid_thw is None else image_grid_thw[first:last]
        mask = None if attention_mask is None else attention_mask[row : row + 1]
        found.append(positions(input_ids[row : row + 1], mm_token_type_ids[row : row + 1], grids, mask, **options))
        first = last
    places, deltas = zip(*found, strict=True)
    return torch.cat(places, dim=1), torch.cat(deltas)
