"""A model of transformers on the processor's ready outputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from aim_backends.hf import TransformersBackend
from aim_sdk.types import Demonstration, ImageInput, Reading
from benchmarks.speed.training.floor import Bare, Places, Prompts


class BareTransformers(Bare):
    """Its inputs are what the model's forward is given."""

    def __init__(self, backend: TransformersBackend) -> None:
        self.backend, self.model = backend, backend.backbone.model

    @contextmanager
    def noting(self) -> Iterator[list[Any]]:
        given: list[dict[str, Tensor]] = []

        def note(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
            given.append({name: value for name, value in kwargs.items() if isinstance(value, Tensor)})

        # First of all hooks: the backbone's own one takes the slots out of the ids.
        handle = self.model.register_forward_pre_hook(note, with_kwargs=True, prepend=True)
        try:
            yield given
        finally:
            handle.remove()

    def reads(
        self, given: Any, demonstrations: Sequence[Demonstration], readings: Sequence[Reading]
    ) -> tuple[Any, list[list[int]]]:
        images = torch.tensor(sorted(self.backend.backbone.image_ids), device=self.backend.device)
        text = ~torch.isin(given["input_ids"], images) & (given["attention_mask"] == 1)
        return given, [row.nonzero()[-len(r) :, 0].tolist() for row, r in zip(text, readings, strict=True)]

    def prompts(self, given: Any, images: Sequence[Sequence[ImageInput]], answers: Sequence[int]) -> Prompts:
        lengths = given["attention_mask"].sum(1).tolist()
        places = [
            (row, end - answer + n - 1)
            for row, (end, answer) in enumerate(zip(lengths, answers, strict=True))
            for n in range(answer)
        ]
        rows, columns = torch.tensor(places).T.to(self.backend.device)
        return Prompts(given, (rows, columns))

    def slots(self, given: Any, fused: Sequence[int]) -> Places:
        rows, columns = (given["input_ids"] == self.backend.slot).nonzero().T
        return rows, columns

    def hidden(self, inputs: Any) -> Tensor:
        hidden: Tensor = self.model.model(**inputs, use_cache=False).last_hidden_state
        return hidden

    def logits(self, prompts: Prompts, fused: tuple[Places, Tensor] | None = None) -> Tensor:
        def write(module: Any, args: Any, output: Tensor) -> Tensor:
            return output if fused is None else output.index_put(*fused)

        handle = self.model.get_input_embeddings().register_forward_hook(write)
        hidden = self.model.model(**prompts.inputs, use_cache=False).last_hidden_state
        handle.remove()
        logits: Tensor = self.model.lm_head(hidden[prompts.places])
        return logits
