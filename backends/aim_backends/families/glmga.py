"""GLM-GA."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from aim_backends.hf.backbone import Backbone
from aim_backends.hf.visual import Size, VisualTokens


class Glmga(Backbone):
    """Its processor counts the tokens of an image as if that were not of whole squares of visual tokens."""

    @cached_property
    def visual(self) -> VisualTokens:
        return _Measured(self)


class _Measured(VisualTokens):
    """Asks the processor for the tokens, not for their number."""

    def _counted(self, sizes: Sequence[Size]) -> list[int]:
        raise NotImplementedError("what it counts is not what it writes")
