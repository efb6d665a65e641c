"""What does not fit, in memory or in the context, is noted; the rest is measured all the same."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from aim_sdk.errors import ContextLengthError

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Attempt(Generic[Found]):
    """What some work gave, or why there was no room for it."""

    found: Found | None = None
    left_out: str = ""


def attempt(work: Callable[[], Found]) -> Attempt[Found]:
    """Do some work; memory that was taken in vain is free again. Any other error is raised."""
    try:
        return Attempt(work())
    except Exception as error:
        why = _no_room(error)
        if not why:
            raise
    release()  # the error held the tensors of every frame that it passed
    return Attempt(left_out=why)


def release() -> None:
    """Give back the memory of what nobody uses any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _no_room(error: BaseException | None) -> str:
    """Why something did not fit; empty if that is not what went wrong."""
    if isinstance(error, ContextLengthError):
        return str(error).partition("\n")[0]
    while error is not None:
        if isinstance(error, MemoryError | torch.OutOfMemoryError):
            return "out of memory"
        if isinstance(error, RuntimeError) and ("out of memory" in str(error) or "ALLOC_FAILED" in str(error)):
            return "out of memory"  # as CUDA's libraries say it
        error = error.__cause__
    return ""
