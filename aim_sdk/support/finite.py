"""NaN and infinity are refused where they arise, so that they are neither used nor kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from aim_sdk.errors import NonFiniteError

_NEXT = {
    torch.float16: "float16 ends at 65,504: load the backbone with dtype='bfloat16' (as small) or dtype='float32'.",
    torch.bfloat16: "load the backbone with dtype='float32'; if that gives the same, its weights are damaged.",
}
_DAMAGED = "the weights are damaged, or an input is far out of range: copy or download the checkpoint again."


def are_finite(groups: Sequence[Iterable[Tensor]]) -> list[bool]:
    """For each group of tensors, whether all of its values are finite; one copy from the device for all of them."""
    if not groups:
        return []
    found = [torch.stack([tensor.isfinite().all() for tensor in group]).all() for group in groups]
    answers: list[bool] = torch.stack(found).tolist()
    return answers


def not_finite(what: str, dtype: torch.dtype) -> NonFiniteError:
    """The error for ``what`` that was computed in ``dtype``; it says what to do."""
    name = str(dtype).removeprefix("torch.")
    return NonFiniteError(f"NaN or infinity in {what}, computed in {name}.\nNext: {_NEXT.get(dtype, _DAMAGED)}")
