"""Unlimited-OCR."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aim_backends.hf.backbone import Backbone


class UnlimitedOcr(Backbone):
    """Its processor counts an image's tiles in lists, which the model takes as they are."""

    def moved(self, outputs: Mapping[str, Any]) -> dict[str, Any]:
        return super().moved(outputs) | {name: outputs[name] for name in ("num_local_patches", "patches_grid")}
