"""Where a backbone is written and read: hooks at its start, after its input embeddings and before its LM head.

A prompt marks the places of fused tokens with slots. At the start of a forward each slot becomes the token that its
fused token stands for, so that whatever looks ids up a second time finds text there; after the input embeddings the
fused tokens take these places.

The hooks are registered once, when the backbone is loaded, and do nothing until a context variable is set. So what is
injected or recorded in one thread (or one task) never shows in another, and is gone when its ``with`` block ends, even
after an exception. The family's own position ids, masks and ``generate`` run untouched.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn, where

from aim_sdk.errors import UnsupportedModelError


@dataclass(frozen=True, slots=True)
class Injection:
    """Fused tokens of each prompt, padded on the right."""

    embeddings: Float[Tensor, "rows slots embed"]
    ids: Int[Tensor, "rows slots"]
    """The tokens that they stand for."""
    slot: int
    """The token id that marks their places."""

    def part(self, rows: int, start: int, stop: int | None = None) -> Injection | None:
        """Some slots of the first rows; None if there are none."""
        embeddings = self.embeddings[:rows, start:stop]
        return Injection(embeddings, self.ids[:rows, start:stop], self.slot) if embeddings.shape[1] else None


@dataclass(slots=True)
class Recording:
    """What a forward computes, the last one if there are several; logits are of the last position only."""

    hidden: Float[Tensor, "rows positions hidden"] | None = None
    """The LM head's input."""
    output: Any = None
    """What the model returns."""


@dataclass(frozen=True, slots=True)
class Positions:
    """Places before the LM head, one per logit that is wanted."""

    rows: Int[Tensor, " places"]
    columns: Int[Tensor, " places"]


_INJECTION: ContextVar[Injection | None] = ContextVar("aim_injection", default=None)
_SLOTS: ContextVar[_Slots | None] = ContextVar("aim_slots", default=None)
_RECORDING: ContextVar[Recording | None] = ContextVar("aim_recording", default=None)
_POSITIONS: ContextVar[Positions | None] = ContextVar("aim_positions", default=None)


@dataclass(slots=True)
class _Slots:
    """The places of fused tokens in one forward."""

    mask: Bool[Tensor, "rows positions"]
    written: bool = False


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
    """Record forwards inside the block, of this thread alone; the LM head then computes the last position alone."""
    record = Recording()
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
    """Register the hooks, once.

    Raises:
        UnsupportedModelError: the model has no input embeddings or no LM head.
    """
    embeddings, head = model.get_input_embeddings(), lm_head(model)
    if not isinstance(embeddings, nn.Module) or not isinstance(head, nn.Module):
        raise UnsupportedModelError(
            f"{type(model).__name__} has no {'LM head' if isinstance(embeddings, nn.Module) else 'input embeddings'}: "
            "it cannot be read and written like a decoder-only language model."
        )
    # A model that another backend has already: its slots would be gone at the second hook.
    if _start not in model._forward_pre_hooks.values():
        model.register_forward_pre_hook(_start, with_kwargs=True)
        model.register_forward_hook(_end, with_kwargs=True, always_call=True)
    if _write not in embeddings._forward_hooks.values():
        embeddings.register_forward_hook(_write, with_kwargs=True)
    if _read not in head._forward_pre_hooks.values():
        head.register_forward_pre_hook(_read)


def lm_head(model: Any) -> Any:
    """The LM head; some models do not name it, but their language model does."""
    head = model.get_output_embeddings()
    return getattr(model, "language_model", model).get_output_embeddings() if head is None else head


def place(
    there: Shaped[Tensor, "rows positions *rest"],
    mask: Bool[Tensor, "rows positions"],
    values: Shaped[Tensor, "prompts slots *rest"],
) -> Shaped[Tensor, "rows positions *rest"]:
    """Put the n-th value of each row at the n-th masked place of that row; beams repeat the prompts."""
    values = values.to(there.device, there.dtype)
    if len(there) != len(values):
        values = values.repeat_interleave(len(there) // len(values), dim=0)
    # No copy to the host: other places gather any value, and `where` drops it.
    index, rest = (mask.cumsum(1) - 1).clamp(0, values.shape[1] - 1), there.shape[2:]
    index, mask = (tensor.view(*tensor.shape, *[1] * len(rest)) for tensor in (index, mask))
    return where(mask, values.gather(1, index.expand(*there.shape[:2], *rest)), there)


def _start(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
    injection = _INJECTION.get()
    ids = kwargs.get("input_ids", args[0] if args else None)
    if injection is None or ids is None:
        return None
    mask = ids == injection.slot
    _SLOTS.set(_Slots(mask))
    text = place(ids, mask, injection.ids)
    return (args, {**kwargs, "input_ids": text}) if "input_ids" in kwargs else ((text, *args[1:]), kwargs)


def _end(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
    slots = _SLOTS.get()
    _SLOTS.set(None)
    if (record := _RECORDING.get()) is not None:
        record.output = output
    if slots is not None and output is not None and not slots.written:
        raise UnsupportedModelError(
            f"{type(module).__name__} embeds its input in a way of its own: fused tokens cannot be put there."
        )


def _write(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor | None:
    injection = _INJECTION.get()
    if injection is None:
        return None
    ids: Tensor = args[0] if args else next(iter(kwargs.values()))
    # Some families also embed one special token alone, to compare with it, or the codes of all images.
    if (slots := _SLOTS.get()) is not None:
        if ids.shape != slots.mask.shape:
            return None
        slots.written = True
        return place(output, slots.mask, injection.embeddings)
    # Before a forward: some families embed in `generate`.
    if ids.ndim != 2 or len(ids) % len(injection.embeddings):
        return None
    return place(output, ids == injection.slot, injection.embeddings)


def _read(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
    if (positions := _POSITIONS.get()) is not None:
        return (args[0][positions.rows, positions.columns][None], *args[1:])
    record = _RECORDING.get()
    if record is None:
        return None
    record.hidden = args[0]
    return (args[0][:, -1:], *args[1:])
