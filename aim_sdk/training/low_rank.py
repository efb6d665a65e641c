"""Matrices that learn a change of low rank and nothing else."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from aim_sdk.projectors.base import Projector


class _Change(nn.Module):
    """Adds ``B A`` to a matrix; B is zero at first."""

    def __init__(self, rows: int, columns: int, rank: int) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.randn(rank, columns) / columns**0.5)
        self.b = nn.Parameter(torch.zeros(rows, rank))

    def forward(self, start: Tensor) -> Tensor:
        return start + self.b @ self.a


def learn_low_rank(projector: Projector, rank: int) -> None:
    """Let every matrix with more than ``rank`` rows and columns learn a change of that rank, and nothing else.

    As in Hu et al., "LoRA" (2021, arXiv 2106.09685), without its scale.
    """
    found = [(m, n, p) for m in projector.modules() for n, p in m.named_parameters(recurse=False)]
    for module, name, matrix in found:
        if matrix.ndim == 2 and min(matrix.shape) > rank:
            rows, columns = matrix.shape
            matrix.requires_grad_(False)
            parametrize.register_parametrization(module, name, _Change(rows, columns, rank).to(matrix))


def plain_name(name: str) -> str:
    """The name of the parameter that another one changes; its own, if it changes none."""
    head, _, tail = name.partition("parametrizations.")
    return f"{head}{tail.partition('.')[0]}" if tail else name
