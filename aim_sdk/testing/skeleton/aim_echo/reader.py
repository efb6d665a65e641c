"""How the toy model reads demonstrations."""

from collections.abc import Sequence

import torch
from torch import Tensor

from aim_echo.model import EchoModel
from aim_echo.template import check_length, opening, turn
from aim_sdk.backend import (
    Demonstration,
    DemoReader,
    FusedTokens,
    PreparedReadings,
    PromptFormat,
    Reading,
    load_image,
    side_by_side,
)


class EchoReader(DemoReader):
    def __init__(self, model: EchoModel) -> None:
        self.model = model

    @torch.no_grad()
    def run(self, prepared: PreparedReadings) -> list[Reading]:
        return [
            self._read(item, prepared.prompt_format, prepared.with_images, prepared.layers)
            for item in prepared.demonstrations
        ]

    def text_only(self, demonstrations: Sequence[Demonstration], *, prompt_format: PromptFormat) -> list[FusedTokens]:
        turns = [turn(prompt_format, item.text, item.answer) for item in demonstrations]
        return [FusedTokens(self.model.embed(turn.text)) for turn in turns]

    def _read(
        self, item: Demonstration, prompt_format: PromptFormat, with_image: bool, layers: Sequence[int]
    ) -> Reading:
        shown = turn(prompt_format, item.text, item.answer)
        ids, place = shown.text, len(shown.before)
        answer_start = place + len(shown.after) + len(shown.blanks)
        embeddings = self.model.embed(ids)
        image = self.model.see(load_image(item.image)) if with_image else embeddings[:0]
        start = self.model.embed(opening(prompt_format))
        check_length(len(start) + len(ids) + len(image), 0)
        states: list[Tensor] = []
        self.model(torch.cat([start, embeddings[:place], image, embeddings[place:]]), layers=states)
        hidden = side_by_side(states, layers)  # of a model that shows its last states alone: only_last(layers)
        text = torch.cat([hidden[len(start) :][:place], hidden[len(start) + place + len(image) :]])
        return Reading(torch.tensor(ids), text, embeddings, image_position=place, answer_start=answer_start)
