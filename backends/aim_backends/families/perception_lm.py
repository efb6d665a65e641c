"""PerceptionLM."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from aim_backends.hf.backbone import Backbone


class PerceptionLM(Backbone):
    """Its processor stacks images of as many tiles alone; its model takes all tiles in one row."""

    def _processed(
        self, prompts: Sequence[str], images: Sequence[Sequence[Image.Image]], padding_side: str
    ) -> dict[str, Tensor]:
        outputs = self._outputs(prompts, images, padding_side)
        tiles = torch.cat(outputs.pop("pixel_values"))
        return self.moved({**{name: torch.tensor(rows) for name, rows in outputs.items()}, "pixel_values": tiles[None]})
