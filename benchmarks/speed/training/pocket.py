"""Pocket's trunk, connector and LM on ready pixels and embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from aim_backends.pocket.backend import PocketBackend
from aim_backends.pocket.vision import VISUAL_TOKENS, preprocess
from aim_sdk.types import Demonstration, ImageInput, Reading
from benchmarks.speed.training.floor import Bare, Places, Prompts


@dataclass(frozen=True)
class Inputs:
    """A forward's inputs; the visual tokens are computed."""

    embedded: Tensor
    mask: Any
    images: list[Any]
    """Names of the images, in the order of their places."""
    pixels: dict[Any, Tensor]
    """Of each image by its name."""
    places: Places
    """The visual tokens', of all images one after the other."""


class BarePocket(Bare):
    """Its inputs are the embeddings that the LM is given, and pixels."""

    def __init__(self, backend: PocketBackend) -> None:
        self.model, self.device = backend.model, backend.device
        self._visual: dict[Any, Tensor] = {}

    def begin(self) -> None:
        self._visual.clear()

    @contextmanager
    def noting(self) -> Iterator[list[Any]]:
        given: list[tuple[Tensor, Any]] = []

        def note(module: Any, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> None:
            given.append((args[0].detach(), kwargs.get("attention_mask")))

        handle = self.model.lm.register_forward_pre_hook(note, with_kwargs=True)
        try:
            yield given
        finally:
            handle.remove()

    def reads(
        self, given: Any, demonstrations: Sequence[Demonstration], readings: Sequence[Reading]
    ) -> tuple[Any, list[list[int]]]:
        rows = [[item.image] for item in demonstrations]
        places = [
            [1 + n + (VISUAL_TOKENS if n >= reading.image_position else 0) for n in range(len(reading))]
            for reading in readings
        ]
        return self._inputs(given, rows), places

    def prompts(self, given: Any, images: Sequence[Sequence[ImageInput]], answers: Sequence[int]) -> Prompts:
        inputs = self._inputs(given, images)
        ends = inputs.embedded.any(-1).sum(1).tolist()  # padding is zero, and comes last
        places = [
            (row, end + 1 - answer + n - 1)  # the last token of an answer is not given
            for row, (end, answer) in enumerate(zip(ends, answers, strict=True))
            for n in range(answer)
        ]
        rows, columns = torch.tensor(places).T.to(self.device)
        return Prompts(inputs, (rows, columns))

    def slots(self, given: Any, fused: Sequence[int]) -> Places:
        rows, columns = torch.tensor([(row, 1 + n) for row, count in enumerate(fused) for n in range(count)]).T
        return rows.to(self.device), columns.to(self.device)

    def hidden(self, inputs: Any) -> Tensor:
        hidden: Tensor = self.model.lm(self._embedded(inputs), attention_mask=inputs.mask)
        return hidden

    def logits(self, prompts: Prompts, fused: tuple[Places, Tensor] | None = None) -> Tensor:
        embedded = self._embedded(prompts.inputs)
        if fused is not None:
            embedded = embedded.index_put(*fused)
        logits: Tensor = self.model.lm.head(self.model.lm(embedded)[prompts.places])
        return logits

    def _embedded(self, inputs: Inputs) -> Tensor:
        return inputs.embedded.index_put(inputs.places, torch.cat(self._encoded(inputs.images, inputs.pixels)))

    def _encoded(self, names: Sequence[Any], pixels: dict[Any, Tensor]) -> list[Tensor]:
        """The visual tokens of images, each computed once per step."""
        missing = [name for name in dict.fromkeys(names) if name not in self._visual]
        found = self.model.vision.encode_pixels([pixels[name] for name in missing])
        self._visual.update(zip(missing, found, strict=True))
        return [self._visual[name] for name in names]

    def _inputs(self, given: tuple[Tensor, Any], images: Sequence[Sequence[ImageInput]]) -> Inputs:
        embedded, mask = given
        names, places, pixels = list[Any](), list[tuple[int, int]](), dict[Any, Tensor]()
        for row, shown in enumerate(images):
            for image in shown:
                name = id(image) if isinstance(image, Image.Image) else image
                pixels.setdefault(name, preprocess(image))
                self.begin()
                first = _found(embedded[row], self._encoded([name], pixels)[0])
                names.append(name)
                places += [(row, first + n) for n in range(VISUAL_TOKENS)]
        rows, columns = torch.tensor(places).T.to(self.device)
        return Inputs(embedded, mask, names, pixels, (rows, columns))


def _found(row: Tensor, visual: Tensor) -> int:
    """Where an image's visual tokens stand in a row ``(tokens, embed)``."""
    windows = row.unfold(0, len(visual), 1).transpose(1, 2)  # (places, 16, embed)
    return int((windows - visual).abs().amax((1, 2)).argmin())
