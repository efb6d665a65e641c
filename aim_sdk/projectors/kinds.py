"""The built-in projectors by kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from aim_sdk.backend.interfaces import Backend
from aim_sdk.errors import InputError, did_you_mean
from aim_sdk.layers import LAST
from aim_sdk.projectors.attention import AttentionProjector
from aim_sdk.projectors.base import Projector
from aim_sdk.projectors.carrier import CarrierProjector, LinearCarrierProjector
from aim_sdk.projectors.linear import LinearNormProjector, LinearProjector
from aim_sdk.projectors.residual import ResidualMLPProjector, ResidualProjector

KINDS: Final[dict[str, type[Projector]]] = {
    cls.kind: cls
    for cls in (
        LinearProjector,
        LinearNormProjector,
        ResidualProjector,
        ResidualMLPProjector,
        CarrierProjector,
        LinearCarrierProjector,
        AttentionProjector,
    )
}
"""The built-in projectors by kind."""


def untrained(kind: str, backend: Backend, *, layers: Sequence[int] = LAST, **options: Any) -> Projector:
    """Build a built-in projector that fits a backbone, with the weights that training begins from.

    Args:
        kind: a key of [`KINDS`][aim_sdk.projectors.kinds.KINDS].
        backend: the loaded backbone.
        layers: what it reads ([`aim_sdk.layers`][aim_sdk.layers]).
        **options: what the kind's constructor takes beside these.

    Raises:
        InputError: no projector is of that kind, or the kind has no such option.
    """
    if kind not in KINDS:
        raise InputError(
            f"unknown projector kind {kind!r}.{did_you_mean(kind, KINDS)} Expected one of: {', '.join(KINDS)}."
        )
    return KINDS[kind].untrained(backend, layers=layers, **options)
