"""More bugs of a third-party adapter: what is declared, drawn, stopped at, and left in the process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from PIL.Image import Image
from torch import Tensor

from aim_sdk import Demonstration, Generation, PromptFormat, Query, load_image
from aim_sdk.backend import ReusesPrefixes
from aim_sdk.backend.answers import stream_answer
from aim_sdk.backend.prepared import PreparedReadings
from aim_sdk.types import ImageInput
from tests.conformance.third_party.adapter import KiteBackend, KiteInjector, KiteReader
from tests.conformance.third_party.model import BOS, USER, KiteModel, decode, encode
from tests.conformance.third_party.mutant import Part, mutant
from tests.conformance.third_party.mutations_of_answers import StopNotCut

# What a call leaves


class SeedsEverybody(KiteInjector):
    def generate(self, *args: Any, **options: Any) -> list[Generation]:
        torch.manual_seed(0)
        return super().generate(*args, **options)


class GradientsOffForGood(KiteInjector):
    def generate(self, *args: Any, **options: Any) -> list[Generation]:
        torch.set_grad_enabled(False)
        return KiteInjector.generate.__wrapped__(self, *args, **options)  # type: ignore[attr-defined, no-any-return]


class DoubleForEverybody(KiteReader):
    def text_only(self, *args: Any, **options: Any) -> Any:
        torch.set_default_dtype(torch.float64)
        return super().text_only(*args, **options)


class QueryImagesKept(KiteInjector):
    """By path, or by the `id` of a picture."""

    kept: ClassVar[dict[object, Tensor]] = {}

    def see(self, queries: Any) -> list[Tensor]:
        keys = [id(q.image) if isinstance(q.image, Image) else str(q.image) for q in queries]
        for key, query in zip(keys, queries, strict=True):
            if key not in self.kept:
                self.kept[key] = self.model.see(load_image(query.image))
        return [self.kept[key] for key in keys]


class ReadImagesKept(KiteReader):
    kept: ClassVar[dict[str, Image]] = {}

    def prepare(self, demonstrations: Sequence[Demonstration], **options: Any) -> PreparedReadings:
        shown = [replace(item, image=self.seen(item.image)) for item in demonstrations]
        return super().prepare(shown, **options)

    def seen(self, image: ImageInput) -> ImageInput:
        return image if isinstance(image, Image) else self.kept.setdefault(str(image), load_image(image))


# Drawn answers


class Sampler(KiteInjector):
    """An honest Kite that draws where it is asked to."""

    def temperature(self, drawn: Mapping[str, Any]) -> float:
        return float(drawn["temperature"])

    def dice(self, seed: int) -> torch.Generator:
        return torch.Generator().manual_seed(seed)

    def generate(
        self,
        queries: Any,
        contexts: Any,
        *,
        do_sample: bool = False,
        temperature: float = 1,
        seed: int = 0,
        **rest: Any,
    ) -> list[Generation]:
        if not do_sample:
            return super().generate(queries, contexts, **rest)
        form, limit = rest["prompt_format"], rest["max_new_tokens"]
        drawn = {"temperature": temperature, "seed": seed}
        found = [self.draw(*pair, form, limit, drawn) for pair in zip(queries, contexts, strict=True)]
        return [Generation(self.clean(ids, form.stop), tuple(ids), length) for ids, length in found]

    @torch.no_grad()
    def draw(
        self, query: Query, context: Any, form: PromptFormat, limit: int, drawn: Mapping[str, Any]
    ) -> tuple[list[int], int]:
        last, mask, cache, lengths = self.prefill([query], [context], form, limit)
        dice, ids = self.dice(drawn["seed"]), list[int]()
        while len(ids) < limit and not self.done(ids, form.stop):
            logits = self.model.head(last[0]).float()[: BOS + 2] / self.temperature(drawn)
            ids.append(int(torch.multinomial(logits.softmax(-1), 1, generator=dice)))
            mask = torch.cat([mask, mask.new_ones(1, 1)], 1)
            states, cache = self.model(self.model.embed(ids[-1:])[None], mask, cache)
            last = states[:, -1]
        return ids, lengths[0]


class SamplingIgnored(Sampler):
    def generate(self, *args: Any, do_sample: bool = False, **options: Any) -> list[Generation]:
        return super().generate(*args, **options)


class TemperatureIgnored(Sampler):
    def temperature(self, drawn: Mapping[str, Any]) -> float:
        return 1.0


class SeedIgnored(Sampler):
    def dice(self, seed: int) -> torch.Generator:
        return super().dice(0)


class SeedOfNoUse(Sampler):
    def dice(self, seed: int) -> torch.Generator:
        dice = torch.Generator()
        dice.seed()
        return dice


class StreamIsGreedy(Sampler):
    def stream(self, *args: Any, do_sample: bool = False, **options: Any) -> Any:
        return super().stream(*args, **options)


class StreamOfAnotherSeed(Sampler):
    def stream(self, *args: Any, seed: int = 0, **options: Any) -> Any:
        return super().stream(*args, seed=seed + 1, **options)


class StreamAtAnotherTemperature(Sampler):
    def stream(self, *args: Any, temperature: float = 1, **options: Any) -> Any:
        return super().stream(*args, **options)


# How answers end


class StreamUnknownOptionsIgnored(KiteInjector):
    def stream(self, *args: Any, prompt_format: PromptFormat, max_new_tokens: int, **options: Any) -> Any:
        return super().stream(*args, prompt_format=prompt_format, max_new_tokens=max_new_tokens)


class StreamTokenByToken(KiteInjector):
    def stream(self, query: Query, context: Any, **options: Any) -> Any:
        (made,) = self.generate([query], [context], **options)
        return stream_answer((decode([token]) for token in made.token_ids), options["prompt_format"].stop)


class Mumbling(KiteModel):
    """Says no printable character: control characters and halves of others."""

    def __init__(self) -> None:
        super().__init__()
        self.head.weight[32:127] = 0


class MumblingStopNotCut(KiteBackend):
    model_class = Mumbling
    injector_class = StopNotCut


class EndedByBos(KiteInjector):
    def answer(self, form: PromptFormat, answer: str, ended: bool = False) -> list[int]:
        return super().answer(form, answer) + [BOS] * ended


class EndedByUserInChat(KiteInjector):
    def answer(self, form: PromptFormat, answer: str, ended: bool = False) -> list[int]:
        found = super().answer(form, answer, ended)
        return [*found[:-1], USER] if ended and form.kind == "chat" else found


class EndedByAnotherTokenInPlain(KiteInjector):
    def answer(self, form: PromptFormat, answer: str, ended: bool = False) -> list[int]:
        found = super().answer(form, answer, ended)
        return [*found[:-1], encode(" ")[0]] if ended and form.kind == "plain" else found


# What is declared


class NamesNoModules(KiteBackend):
    @property
    def modules(self) -> Any:
        return ()


class NamesHalfItsModules(KiteBackend):
    @property
    def modules(self) -> Any:
        return tuple(self.model.blocks)


class PrefixesUndeclared(KiteBackend):
    @property
    def lacks(self) -> dict[type, str]:
        return {ReusesPrefixes: "nobody measured it"}


class ScoresAreTensors(KiteInjector):
    def score(self, *args: Any, **options: Any) -> Any:
        return [torch.tensor(row) for row in super().score(*args, **options)]


CAUGHT: list[tuple[str, Part]] = [
    ("leaves_the_process_alone", SeedsEverybody),
    ("leaves_the_process_alone", GradientsOffForGood),
    ("leaves_the_process_alone", DoubleForEverybody),
    ("images_are_seen_again", QueryImagesKept),
    ("images_are_seen_again", ReadImagesKept),
    ("sampling", SamplingIgnored),
    ("sampling", TemperatureIgnored),
    ("sampling", SeedIgnored),
    ("sampling", SeedOfNoUse),
    ("sampling", StreamIsGreedy),
    ("sampling", StreamOfAnotherSeed),
    ("sampling", StreamAtAnotherTemperature),
    ("options_are_used", StreamUnknownOptionsIgnored),
    ("stream_keeps_characters", StreamTokenByToken),
    ("stop_string", MumblingStopNotCut),
    ("ended", EndedByBos),
    ("ended", EndedByUserInChat),
    ("ended", EndedByAnotherTokenInPlain),
    ("declarations", NamesNoModules),
    ("declarations", NamesHalfItsModules),
    ("declarations", PrefixesUndeclared),
    ("return_types", ScoresAreTensors),
]
"""Which check must catch which bug."""


def made(bug: Part) -> KiteBackend:
    """Kite with the bug."""
    return mutant(bug)
