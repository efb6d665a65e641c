"""Projectors: small modules over padded readings. Saved and loaded as folders (`aim_sdk.projectors.saved`)."""

from typing import TYPE_CHECKING

from aim_sdk.support.lazy import lazy

if TYPE_CHECKING:
    from aim_sdk.projectors.attention import AttentionProjector
    from aim_sdk.projectors.base import Projector
    from aim_sdk.projectors.batch import ReadingBatch
    from aim_sdk.projectors.carrier import CarrierProjector, LinearCarrierProjector
    from aim_sdk.projectors.kinds import KINDS, untrained
    from aim_sdk.projectors.linear import LinearNormProjector, LinearProjector
    from aim_sdk.projectors.residual import ResidualMLPProjector, ResidualProjector

__all__ = [
    "KINDS",
    "AttentionProjector",
    "CarrierProjector",
    "LinearCarrierProjector",
    "LinearNormProjector",
    "LinearProjector",
    "Projector",
    "ReadingBatch",
    "ResidualMLPProjector",
    "ResidualProjector",
    "untrained",
]

if not TYPE_CHECKING:
    __getattr__ = lazy(
        __name__,
        {
            "attention": ["AttentionProjector"],
            "base": ["Projector"],
            "batch": ["ReadingBatch"],
            "carrier": ["CarrierProjector", "LinearCarrierProjector"],
            "kinds": ["KINDS", "untrained"],
            "linear": ["LinearNormProjector", "LinearProjector"],
            "residual": ["ResidualMLPProjector", "ResidualProjector"],
        },
    )
