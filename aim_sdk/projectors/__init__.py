"""The built-in projectors: small modules over padded readings. `aim_sdk.projectors.saved` saves and loads them."""

from aim_sdk.projectors.attention import AttentionProjector
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
    "ResidualMLPProjector",
    "ResidualProjector",
    "untrained",
]
