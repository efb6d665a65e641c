"""How close two computations of the same numbers must be: each check states it, for each precision, and uses that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from typing import TypeAlias

import torch

from aim_sdk.backend.interfaces import Backend

Limit: TypeAlias = float | str
"""How far apart two numbers may be, relative to the largest one (or to 1); or why nothing can be said."""

_FLOAT64 = 1e-8


@dataclass(frozen=True, slots=True)
class Precision:
    """What a check compares, and how close it must be in each dtype."""

    compared: str
    float32: Limit
    bfloat16: Limit
    float16: Limit

    def limit(self, dtype: torch.dtype) -> Limit:
        """The limit in a dtype; one that is not known (of a quantised model) is as bfloat16."""
        limits = {torch.float64: _FLOAT64, torch.float32: self.float32, torch.float16: self.float16}
        return limits.get(dtype, self.bfloat16)


PRECISION: dict[str, Precision] = {}
"""What the checks state that compare numbers; all others are exact."""

_STATED: ContextVar[Precision] = ContextVar("stated")


def close(
    compared: str, *, bfloat16: Limit, float16: Limit, float32: Limit = 1e-4
) -> Callable[[Callable[[Backend], None]], Callable[[Backend], None]]:
    """State how close a check's numbers must be, below `check` or `heart`; its comparisons use these limits."""
    stated = Precision(compared, float32, bfloat16, float16)

    def note(function: Callable[[Backend], None]) -> Callable[[Backend], None]:
        PRECISION[function.__name__.removeprefix("check_")] = stated

        @wraps(function)
        def checked(backend: Backend) -> None:
            with _used(stated):
                function(backend)

        return checked

    return note


def allowed(dtype: torch.dtype) -> float:
    """The limit that the check which runs states for a dtype."""
    limit = _STATED.get().limit(dtype)
    assert not isinstance(limit, str), limit  # the kit does not run it
    return limit


def left_out(check: str, dtype: torch.dtype) -> str | None:
    """Why a check says nothing in a dtype; None if it does."""
    limit = PRECISION[check].limit(dtype) if check in PRECISION else 0.0
    return limit if isinstance(limit, str) else None


def is_half(dtype: torch.dtype) -> bool:
    """Whether near ties are to be expected: two orders of the same sums may then have other largest numbers."""
    return dtype not in (torch.float32, torch.float64)


@contextmanager
def _used(stated: Precision) -> Iterator[None]:
    token = _STATED.set(stated)
    try:
        yield
    finally:
        _STATED.reset(token)
