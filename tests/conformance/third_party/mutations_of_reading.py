"""Bugs in the adapter of Kite: how prompts are written, and what is read."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from aim_sdk import Demonstration, FusedTokens, PromptFormat, Reading
from tests.conformance.third_party.adapter import KiteReader, Template, Turn
from tests.conformance.third_party.model import BOS, END
from tests.conformance.third_party.mutant import Part, square

# How prompts are written


class SystemDropped(Template):
    def opening(self, form: PromptFormat) -> list[int]:
        return super().opening(form.model_copy(update={"system": None}))


class SystemDroppedInChat(Template):
    def opening(self, form: PromptFormat) -> list[int]:
        return [BOS] if form.kind == "chat" else super().opening(form)


class SystemStripped(Template):
    def opening(self, form: PromptFormat) -> list[int]:
        return super().opening(form.model_copy(update={"system": form.system and form.system.strip()}))


class WrongBos(Template):
    def opening(self, form: PromptFormat) -> list[int]:
        return [END, *super().opening(form)[1:]]


class NoLeadingBlank(Template):
    def turn(self, form: PromptFormat, text: str, answer: str = "") -> Turn:
        turn = super().turn(form, text, answer)
        return dataclasses.replace(turn, answer=turn.answer[self.lead(form) :])


class TurnsNeverEnd(Template):
    def turn(self, form: PromptFormat, text: str, answer: str = "") -> Turn:
        return dataclasses.replace(super().turn(form, text, answer), end=[])


class ImageAlwaysFirst(Template):
    def turn(self, form: PromptFormat, text: str, answer: str = "") -> Turn:
        turn = super().turn(form, text, answer)
        return dataclasses.replace(turn, before=[], after=turn.before + turn.after)


class LowerCase(Template):
    def turn(self, form: PromptFormat, text: str, answer: str = "") -> Turn:
        return super().turn(form, text.lower(), answer)


# What is read


class Shifted(KiteReader):
    answer, image = 0, 0

    def reading(self, *args: Any) -> Reading:
        found = super().reading(*args)
        start, place = found.answer_start + self.answer, found.image_position + self.image
        return dataclasses.replace(found, answer_start=start, image_position=place)


class AnswerStartLate(Shifted):
    answer = 1


class AnswerStartEarly(Shifted):
    answer = -1


class AnswerStartAtTheRole(Shifted):
    answer = -4


class ImagePositionLate(Shifted):
    image = 2


class ImagePositionNought(KiteReader):
    def reading(self, *args: Any) -> Reading:
        return dataclasses.replace(super().reading(*args), image_position=0)


class ReaderWithoutSystem(KiteReader):
    def opening(self, form: PromptFormat) -> list[int]:
        return [BOS]


class ReaderWithoutSystemInChat(KiteReader):
    def opening(self, form: PromptFormat) -> list[int]:
        return [BOS] if form.kind == "chat" else super().opening(form)


class ReaderWithoutBos(KiteReader):
    def opening(self, form: PromptFormat) -> list[int]:
        return super().opening(form)[1:]


class BeforeTheFinalNorm(KiteReader):
    def layers(self, states: list[Tensor], layers: Sequence[int]) -> Tensor:
        return super().layers([*states[:-1], states[-1] * 1.5 + 0.1], layers)


class LastLayerButOne(KiteReader):
    def layers(self, states: list[Tensor], layers: Sequence[int]) -> Tensor:
        return super().layers([*states[:-1], states[-2]], layers)


class LayersTurned(KiteReader):
    def layers(self, states: list[Tensor], layers: Sequence[int]) -> Tensor:
        return super().layers(states, layers[::-1])


class ReaderSquashesImages(KiteReader):
    def see(self, item: Demonstration) -> Tensor:
        return self.model.see(square(item.image))


class ReaderSeesTheFirstImage(KiteReader):
    def read(self, demonstrations: Sequence[Demonstration], **options: Any) -> list[Reading]:
        image = demonstrations[0].image
        return super().read([dataclasses.replace(item, image=image) for item in demonstrations], **options)


class ReaderCasts(KiteReader):
    def reading(self, *args: Any) -> Reading:
        found = super().reading(*args)
        return dataclasses.replace(found, hidden=found.hidden.double())


class ReaderRounds(KiteReader):
    def reading(self, *args: Any) -> Reading:
        found = super().reading(*args)
        return dataclasses.replace(found, hidden=found.hidden.bfloat16().float())


class ReaderSortsByLength(KiteReader):
    def read(self, demonstrations: Sequence[Demonstration], **options: Any) -> list[Reading]:
        return super().read(sorted(demonstrations, key=lambda item: -len(item.text)), **options)


class ReaderGivesLists(KiteReader):
    def reading(self, *args: Any) -> Reading:
        found = super().reading(*args)
        return dataclasses.replace(found, token_ids=found.token_ids.tolist())


class TextOnlyWithoutItsEnd(KiteReader):
    def text_only(self, *args: Any, **options: Any) -> list[FusedTokens]:
        return [FusedTokens(item.embeddings[:-1]) for item in super().text_only(*args, **options)]


CAUGHT: list[tuple[str, Part]] = [
    ("identity_forward", SystemDropped),
    ("plain_model", SystemDroppedInChat),
    ("identity_forward", SystemStripped),
    ("plain_model", WrongBos),
    ("identity_forward", NoLeadingBlank),
    ("identity_forward", TurnsNeverEnd),
    ("plain_model", ImageAlwaysFirst),
    ("plain_model", LowerCase),
    ("answer_start", AnswerStartLate),
    ("answer_start", AnswerStartEarly),
    ("answer_start", AnswerStartAtTheRole),
    ("image_position", ImagePositionLate),
    ("image_position", ImagePositionNought),
    ("reading_is_scored", ReaderWithoutSystem),
    ("reading_is_scored_in_chat", ReaderWithoutSystemInChat),
    ("reading_is_scored", ReaderWithoutBos),
    ("reading_is_scored", BeforeTheFinalNorm),
    ("reading_is_scored", LastLayerButOne),
    ("reading_layers", LayersTurned),
    ("reading_is_scored", ReaderSquashesImages),
    ("reading_alone", ReaderSeesTheFirstImage),
    ("dtype_and_device", ReaderCasts),
    ("reading_is_scored", ReaderRounds),
    ("reading_alone", ReaderSortsByLength),
    ("return_types", ReaderGivesLists),
    ("reading_is_the_text", TextOnlyWithoutItsEnd),
]
"""Which check must catch which bug."""
