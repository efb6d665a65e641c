"""MiniMax M3."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from aim_backends.families.opened import Opened


class MiniMaxM3(Opened):
    """Its sparse layers choose among blocks of earlier tokens, which transformers 5.23 counts from the padding."""

    def __init__(self, model: Any, *args: Any, **options: Any) -> None:
        super().__init__(model, *args, **options)
        count_from_the_text(model)


def count_from_the_text(model: Any) -> None:
    """Make a row of a left-padded batch choose the blocks that it chooses alone."""
    if model.config.get_text_config()._attn_implementation in ("eager", "sdpa"):
        for module in model.modules():
            if hasattr(module, "build_block_mask"):
                _wrap(module)


def _wrap(indexer: Any) -> None:
    choose, mask_blocks = indexer.forward, indexer.build_block_mask

    def forward(states: Tensor, rotations: Any, cache: Any, positions: Tensor) -> Any:
        if len(positions) == 1:
            return choose(states, rotations, cache, positions)

        def update_index(keys: Tensor) -> Tensor:
            known = keys if cache is None else cache.layers[indexer.layer_idx].update_index(keys)
            places = _from_the_text(positions, known.shape[2])
            return known.gather(2, places[:, None, :, None].expand_as(known))

        layer = SimpleNamespace(update_index=update_index)
        return choose(states, rotations, SimpleNamespace(layers={indexer.layer_idx: layer}), positions)

    def build_block_mask(
        blocks: Tensor, mask: Tensor | None, width: int, dtype: torch.dtype, device: torch.device, positions: Tensor
    ) -> Any:
        if mask is None or len(positions) == 1:
            return mask_blocks(blocks, mask, width, dtype, device, positions)
        places = _from_the_text(positions, width)[:, None, None]
        moved = mask_blocks(blocks, mask.gather(3, places.expand_as(mask)), width, dtype, device, positions)
        return moved.gather(3, places.argsort(-1).expand_as(moved))

    indexer.forward = forward
    indexer.build_block_mask = build_block_mask


def _from_the_text(positions: Tensor, width: int) -> Tensor:
    """The places of each row's keys from its first token on, the padding before it last."""
    padding = width - 1 - positions[:, -1:]
    return (torch.arange(width, device=positions.device) + padding) % width
