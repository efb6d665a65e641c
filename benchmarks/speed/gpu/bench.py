"""A shape with everything that is measured on it: its backend, 64 demonstrations, and the ways to show them."""

from __future__ import annotations

import gc
import tempfile
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from aim_sdk import AIMPipeline, Demonstration, FusedTokens, Query
from aim_sdk.projectors import untrained
from benchmarks.speed.gpu.build import build
from benchmarks.speed.gpu.shapes import Shape
from benchmarks.speed.reading import photographs
from benchmarks.speed.ways import QUESTION, Ways, computed_whole, reusable

SHOTS = (0, 1, 4, 16, 64)
PREFIX_BYTES = 1 << 36
"""Every prefix is kept: how many bytes one takes is measured, and the default would refuse long ones."""
SIZE = (640, 480)
ANSWER = "a lynx"
"""Of every demonstration: with the question and the template's markers, about as many tokens as a short caption."""


class Bench(Ways):
    """Two rows of a way differ in whether the keys and values of its context are kept for the next query.

    ``interleaved`` gives the demonstrations with their images to the family's own processor and model. Its reused row
    keeps as many positions by the SDK's own cache: they were drawn at random, since what a kept key or value says makes
    no difference to its cost.
    """

    def __init__(self, shape: Shape, device: torch.device, *, small: bool) -> None:
        self.device, self.small = device, small
        self.model = build(shape, device, small=small)
        self.folder = tempfile.TemporaryDirectory(prefix="aim-speed-")
        form = self.model.default_format
        self.paths = photographs(Path(self.folder.name), max(SHOTS), sizes=[SIZE])
        pictures = [Image.open(path).convert("RGB") for path in self.paths]
        shown = [Demonstration(picture, QUESTION, ANSWER) for picture in pictures]
        pipe = AIMPipeline(self.model, untrained("carrier", self.model.vocabulary), prompt_format=form)
        pipe.bank.add(shown)
        fused = [entry.fused for entry in pipe.bank.values()]
        texts = self.model.reader.text_only(shown, prompt_format=form)
        super().__init__(self.model, form, cycle(pictures), {})
        one = torch.randn(self._positions(shown[:1]), self.model.backbone.embedding_size, device=device)
        drawn = FusedTokens(one.to(self.model.dtype) * self.model.fingerprint.embedding_rms)
        self.contexts = {
            "AIM": computed_whole(fused),
            "AIM, reused": reusable("AIM", fused),
            "interleaved": shown,
            "interleaved, reused": reusable("interleaved", [drawn] * len(shown)),
            "text-only": computed_whole(texts),
        }
        self.about: dict[str, Any] = {
            "checkpoint_of_these_sizes": shape.checkpoint,
            "parameters": sum(parameter.numel() for parameter in self.model.model.parameters()),
            "weights_bytes": sum(parameter.nbytes for parameter in self.model.model.parameters()),
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "attention": self.model.model.config._attn_implementation,
            "context_length": self.model.backbone.context_length,
            "visual_tokens": self._visual_tokens(pictures[0]),
            "positions_per_demonstration": {"AIM": len(fused[0]), "interleaved": len(drawn)},
        }
        gc.collect()
        gc.freeze()  # garbage is collected before each call that is timed: of what stays, nobody needs to look for it

    def _visual_tokens(self, picture: Image.Image) -> int:
        backbone = self.model.backbone
        ids = backbone.process([backbone.placeholder], [[picture]], padding_side="right")["input_ids"]
        return int((ids == backbone.model.config.image_token_id).sum())

    def _positions(self, shown: list[Demonstration]) -> int:
        """What a demonstration with its image takes in a prompt."""
        query, prepare = Query(shown[0].image, QUESTION), self.model.injector.prepare
        with_it, without = (prepare([query], [items], prompt_format=self.form) for items in (shown, []))
        return with_it.lengths[0] - without.lengths[0]

    def forget(self) -> None:
        """Drop all prefixes that were kept."""
        self.model.prefixes.resize(PREFIX_BYTES)
