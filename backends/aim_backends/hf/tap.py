"""Where a backbone is written and read: one hook after its input embeddings, one before its LM head.

Both hooks are registered once, when the backbone is loaded, and do nothing until a context variable is set. So what is
injected or recorded in one thread (or one task) never shows in another, and is gone when its ``with`` block ends, even
after an exception. The family's own position ids, masks and ``generate`` run untouched.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn, where

from aim_sdk.errors import UnsupportedModelError


@dataclass(frozen=True, slots=True)
class Injection:
    """Fused tokens of each prompt, padded on the right, and the token id that marks their places."""

    fused: Float[Tensor, "rows slots embed"]
    slot: int
    pad: int = 0
    """What a slot is where a family looks its id up a second time."""


@dataclass(frozen=True, slots=True)
class Recording:
    """The LM head's input, one tensor per forward, if asked for; logits are of the last position only."""

    hidden: list[Float[Tensor, "rows positions hidden"]]


@dataclass(frozen=True, slots=True)
class Positions:
    """Places before the LM head, one per logit that is wanted."""

    rows: Int[Tensor, " places"]
    columns: Int[Tensor, " places"]


_INJECTION: ContextVar[Injection | None] = ContextVar("aim_injection", default=None)
_RECORDING: ContextVar[Recording | None] = ContextVar("aim_recording", default=None)
_POSITIONS: ContextVar[Positions | None] = ContextVar("aim_positions", default=None)


@contextmanager
def injected(injection: Injection | None) -> Iterator[None]:
    """Replace the slots' embeddings by fused tokens inside the block; None leaves the backbone plain."""
    token = _INJECTION.set(injection)
    try:
        yield
    finally:
        _INJECTION.reset(token)


@contextmanager
def recording() -> Iterator[Recording]:
    """Record the last hidden states inside the block; the LM head then computes the last position alone."""
    record = Recording([])
    token = _RECORDING.set(record)
    try:
        yield record
    finally:
        _RECORDING.reset(token)


@contextmanager
def predicting(positions: Positions) -> Iterator[None]:
    """Inside the block the LM head computes these positions alone: logits are ``(1, places, vocabulary)``."""
    token = _POSITIONS.set(positions)
    try:
        yield
    finally:
        _POSITIONS.reset(token)


def attach(model: Any) -> None:
    """Register both hooks.

    Raises:
        UnsupportedModelError: the model has no input embeddings or no LM head.
    """
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    if not isinstance(embeddings, nn.Module) or not isinstance(head, nn.Module):
        raise UnsupportedModelError(
            f"{type(model).__name__} has no {'LM head' if isinstance(embeddings, nn.Module) else 'input embeddings'}: "
            "it cannot be read and written like a decoder-only language model."
        )
    embeddings.register_forward_hook(_write, with_kwargs=True)
    head.register_forward_pre_hook(_read)
    # Gemma 3n and 4 give every layer another embedding of the ids.
    per_layer = getattr(model, "get_per_layer_input_embeddings", lambda: None)()
    if per_layer is not None:
        per_layer.register_forward_pre_hook(_hide)


def place(
    embeddings: Float[Tensor, "rows positions embed"],
    ids: Int[Tensor, "rows positions"],
    injection: Injection,
) -> Float[Tensor, "rows positions embed"]:
    """Put the n-th fused token of each row at the n-th slot of that row; beams repeat the rows."""
    mask = ids == injection.slot
    fused = injection.fused.to(embeddings.device, embeddings.dtype)
    if len(ids) != len(fused):
        fused = fused.repeat_interleave(len(ids) // len(fused), dim=0)
    # No copy to the host: positions without a slot gather any fused token, and `where` drops it.
    index = (mask.cumsum(1) - 1).clamp(0, fused.shape[1] - 1)
    chosen = fused.gather(1, index[..., None].expand(-1, -1, fused.shape[2]))
    return where(mask[..., None], chosen, embeddings)


def _write(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor | None:
    injection = _INJECTION.get()
    if injection is None:
        return None
    ids: Tensor = args[0] if args else next(iter(kwargs.values()))
    # Some families also embed one special token alone, to compare with it, or the codes of all images.
    return place(output, ids, injection) if ids.ndim == 2 and len(ids) % len(injection.fused) == 0 else None


def _hide(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
    injection = _INJECTION.get()
    if injection is None:
        return None
    return (args[0].masked_fill(args[0] == injection.slot, injection.pad), *args[1:])


def _read(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
    if (positions := _POSITIONS.get()) is not None:
        return (args[0][positions.rows, positions.columns][None], *args[1:])
    record = _RECORDING.get()
    if record is None:
        return None
    record.hidden.append(args[0])
    return (args[0][:, -1:], *args[1:])
