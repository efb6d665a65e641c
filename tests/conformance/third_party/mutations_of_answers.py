"""Bugs in the adapter of Kite: what is generated and scored."""

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor

from aim_sdk import Generation, PromptFormat, Query
from aim_sdk.backend.answers import stream_answer
from tests.conformance.third_party.adapter import KiteInjector
from tests.conformance.third_party.model import decode
from tests.conformance.third_party.mutant import Part


class BeamsIgnored(KiteInjector):
    def options(self, generation: Any) -> dict[str, Any]:
        return {"num_beams": 1}


class UnknownOptionsIgnored(KiteInjector):
    def options(self, generation: Any) -> dict[str, Any]:
        return {"num_beams": generation.get("num_beams", 1)}


class LimitIgnored(KiteInjector):
    def decode(self, prefilled: Any, stop: str | None, limit: int, beams: int) -> Any:
        return super().decode(prefilled, stop, max(limit, 4), beams)


class StopNotCut(KiteInjector):
    def clean(self, ids: list[int], stop: str | None) -> str:
        return decode(ids).strip()


class BlanksKept(KiteInjector):
    def clean(self, ids: list[int], stop: str | None) -> str:
        return f"{super().clean(ids, stop)} "


class StreamKnowsNoStop(KiteInjector):
    def stream(self, query: Query, context: Any, **options: Any) -> Any:
        (made,) = self.generate([query], [context], **options)
        return stream_answer((decode(list(made.token_ids)),), None)


class TokensAsTensors(KiteInjector):
    def generate(self, *args: Any, **options: Any) -> list[Generation]:
        found = super().generate(*args, **options)
        return [dataclasses.replace(made, token_ids=list(made.token_ids)) for made in found]


class PromptTokensWithoutImages(KiteInjector):
    def prefill(self, queries: Any, contexts: Any, form: PromptFormat, room: int) -> Any:
        last, mask, cache, lengths = super().prefill(queries, contexts, form, room)
        images = [len(image) for image in self.see(queries)]
        return last, mask, cache, [length - image for length, image in zip(lengths, images, strict=True)]


class PromptTokensOfTheBatch(KiteInjector):
    def prefill(self, queries: Any, contexts: Any, form: PromptFormat, room: int) -> Any:
        last, mask, cache, lengths = super().prefill(queries, contexts, form, room)
        return last, mask, cache, [max(lengths)] * len(lengths)


class Logits(KiteInjector):
    def logs(self, hidden: Tensor) -> Tensor:
        return self.model.head(hidden).float()


class BitsNotNats(KiteInjector):
    def logs(self, hidden: Tensor) -> Tensor:
        return super().logs(hidden) / math.log(2)


class Tempered(KiteInjector):
    def logs(self, hidden: Tensor) -> Tensor:
        return (self.model.head(hidden).float() / 0.7).log_softmax(-1)


class NormalisedOverSomeTokens(KiteInjector):
    def logs(self, hidden: Tensor) -> Tensor:
        found = self.model.head(hidden).float()
        return found - found[..., :128].logsumexp(-1, keepdim=True)


class ScoresOfTheNextToken(KiteInjector):
    def answer(self, form: PromptFormat, answer: str, ended: bool = False) -> list[int]:
        return super().answer(form, answer, ended)[1:]


class AnswersWithoutTheirBlank(KiteInjector):
    def answer(self, form: PromptFormat, answer: str, ended: bool = False) -> list[int]:
        return super().answer(form, answer, ended)[self.template.lead(form) :]


class EndedIgnored(KiteInjector):
    def answer(self, form: PromptFormat, answer: str, ended: bool = False) -> list[int]:
        return super().answer(form, answer)


class EndedEndsAlways(KiteInjector):
    def answer(self, form: PromptFormat, answer: str, ended: bool = False) -> list[int]:
        return super().answer(form, answer, True)


class Sampling(KiteInjector):
    def logs(self, hidden: Tensor) -> Tensor:
        found = self.model.head(hidden).float()
        return (found + torch.randn_like(found)).log_softmax(-1)


class NoGradient(KiteInjector):
    def log_probs(self, *args: Any, **options: Any) -> list[Tensor]:
        with torch.no_grad():
            return super().log_probs(*args, **options)


CAUGHT: list[tuple[str, Part]] = [
    ("options_are_used", BeamsIgnored),
    ("options_are_used", UnknownOptionsIgnored),
    ("options_are_used", LimitIgnored),
    ("stop_string", StopNotCut),
    ("stop_string", BlanksKept),
    ("stop_string", StreamKnowsNoStop),
    ("return_types", TokensAsTensors),
    ("prompt_tokens", PromptTokensWithoutImages),
    ("identity_batch", PromptTokensOfTheBatch),
    ("scores_are_log_probabilities", Logits),
    ("reading_is_scored", BitsNotNats),
    ("reading_is_scored", Tempered),
    ("reading_is_scored", NormalisedOverSomeTokens),
    ("reading_is_scored", ScoresOfTheNextToken),
    ("reading_is_scored", AnswersWithoutTheirBlank),
    ("ended", EndedIgnored),
    ("ended", EndedEndsAlways),
    ("deterministic", Sampling),
    ("gradient_reaches_the_projector_only", NoGradient),
]
"""Which check must catch which bug."""
