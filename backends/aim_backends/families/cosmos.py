"""Cosmos 3 Edge."""

from __future__ import annotations

from typing import Any

from aim_backends.hf.backbone import Backbone


class Cosmos3Edge(Backbone):
    """Its model needs to know which tokens stand for an image; its processor says so only if it is asked."""

    def __init__(self, model: Any, processor: Any, *options: Any, **named: Any) -> None:
        processor.return_mm_token_type_ids = True
        super().__init__(model, processor, *options, **named)
