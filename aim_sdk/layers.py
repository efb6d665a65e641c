"""Which layers of a backbone a reading holds.

Layer 0 is what enters the first decoder layer, layer ``i`` the output of the ``i``-th one; the output of the last is
taken after the final norm, where the LM head reads it. Negative numbers count from the end: -1 is the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from aim_sdk.errors import CapabilityError, InputError

LAST: Final = (-1,)
"""The last hidden states alone: what is read by default."""


def check_layers(layers: Sequence[int]) -> tuple[int, ...]:
    """Return layers as a tuple.

    Raises:
        InputError: there are none, one is repeated, or one is not an integer.
    """
    found = tuple(layers)
    if not found or len(set(found)) < len(found) or not all(type(layer) is int for layer in found):
        raise InputError(f"layers {found}: expected one or more integers, none of them twice, as in (-1,) or (12, -1).")
    return found


def check_there(layers: Sequence[int], count: int | None) -> None:
    """Refuse layers that a backbone with ``count`` decoder layers does not have; None (not known) refuses none.

    Raises:
        InputError: there is no such layer.
    """
    if count is None:
        return
    for layer in layers:
        if not -count - 1 <= layer <= count:
            raise InputError(
                f"layer {layer}: this backbone has {count} decoder layers. "
                f"Expected 0 (its input) to {count}, or -1 (the last) to {-count - 1}."
            )


def side_by_side(
    states: Sequence[Float[Tensor, "*positions hidden"]], layers: Sequence[int]
) -> Float[Tensor, "*positions width"]:
    """Put chosen layers side by side, in the order in which they are named.

    Args:
        states: layer 0 and the output of every decoder layer.
        layers: which of them.

    Raises:
        InputError: there is no such layer.
    """
    check_there(layers, len(states) - 1)
    place = states[-1].device  # a backbone may be spread over several
    return torch.cat([states[layer].to(place) for layer in layers], -1)


def only_last(layers: Sequence[int]) -> None:
    """Refuse all layers but the last: for readers that return only the last hidden states.

    Raises:
        CapabilityError: other layers are asked for.
    """
    if tuple(layers) != LAST:
        raise CapabilityError(
            f"layers {tuple(layers)}: this reader returns only the last hidden states.\n"
            "Next: use a projector whose layers are (-1,)."
        )
