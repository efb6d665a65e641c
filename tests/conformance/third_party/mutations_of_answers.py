"""Bugs in the adapter of Kite: what is generated and scored."""

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor

from aim_sdk import Demonstration, Generation, PromptFormat, Query
from aim_sdk.backend.answers import stream_answer
from aim_sdk.backend.prepared import AnswerLogits, PreparedAnswers
from tests.conformance.third_party.adapter import KiteBackend, KiteInjector
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
    def answer_logits(self, *args: Any, **options: Any) -> list[AnswerLogits]:
        with torch.no_grad():
            return super().answer_logits(*args, **options)


class LogitsOfTheNextPosition(KiteInjector):
    def answer_logits(self, *args: Any, **options: Any) -> list[AnswerLogits]:
        found = super().answer_logits(*args, **options)
        return [AnswerLogits(one.token_ids, one.logits.roll(-1, 0)) for one in found]


class LogitsOfAnotherAnswer(KiteInjector):
    """Right for one query alone."""

    def answer_logits(self, *args: Any, **options: Any) -> list[AnswerLogits]:
        found = super().answer_logits(*args, **options)
        rows = torch.cat([one.logits for one in found[1:] + found[:1]])
        counts = [len(one) for one in found]
        return [AnswerLogits(one.token_ids, part) for one, part in zip(found, torch.split(rows, counts), strict=True)]


class LogitsOfTheAnswersTokensOnly(KiteInjector):
    """Their probabilities are right, and nobody else's."""

    def answer_logits(self, *args: Any, **options: Any) -> list[AnswerLogits]:
        return [self.alone(one) for one in super().answer_logits(*args, **options)]

    def alone(self, one: AnswerLogits) -> AnswerLogits:
        rows, own = torch.arange(len(one)), one.log_probs
        rest = (-own.exp()).log1p() - math.log(one.logits.shape[1] - 1)
        logits = rest[:, None].expand_as(one.logits).clone()
        logits[rows, one.token_ids] = own
        return AnswerLogits(one.token_ids, logits)


class LaterLogitsOfTheAnswersTokensOnly(LogitsOfTheAnswersTokensOnly):
    def alone(self, one: AnswerLogits) -> AnswerLogits:
        return AnswerLogits(one.token_ids, torch.cat([one.logits[:1], super().alone(one).logits[1:]]))


class LogitsHidingTheImagesOfDemonstrations(KiteInjector):
    def answer_logits(self, prepared: Any, contexts: Any) -> list[AnswerLogits]:
        reader, form = self.backend.reader, prepared.prompt_format
        text = [
            reader.text_only(row, prompt_format=form) if any(isinstance(item, Demonstration) for item in row) else row
            for row in contexts
        ]
        return super().answer_logits(prepared, text)


class LogitsMixingInterleavedContexts(KiteInjector):
    def answer_logits(self, prepared: Any, contexts: Any) -> list[AnswerLogits]:
        shown = any(isinstance(item, Demonstration) for row in contexts for item in row)
        return super().answer_logits(prepared, contexts[::-1] if shown else contexts)


class AnswersAsLists(KiteInjector):
    def answer_logits(self, *args: Any, **options: Any) -> list[AnswerLogits]:
        found = super().answer_logits(*args, **options)
        return [AnswerLogits(one.token_ids.tolist(), one.logits) for one in found]  # type: ignore[arg-type]


class TokensOfTheAnswersWithoutTheirEnd(KiteBackend):
    """What is told of the tokens does not depend on ``ended``."""

    def prepare_answers(self, queries: Any, answers: Any, **options: Any) -> PreparedAnswers:
        right = super().prepare_answers(queries, answers, **options)
        told = super().prepare_answers(queries, answers, prompt_format=options["prompt_format"]).token_ids
        return dataclasses.replace(right, token_ids=told)


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
    ("answer_logits", LogitsOfTheNextPosition),
    ("answer_logits_batch", LogitsOfAnotherAnswer),
    ("answer_logits", LogitsOfTheAnswersTokensOnly),
    ("answer_logits", LaterLogitsOfTheAnswersTokensOnly),
    ("answer_logits", LogitsHidingTheImagesOfDemonstrations),
    ("answer_logits_batch", LogitsMixingInterleavedContexts),
    ("answer_logits", AnswersAsLists),
    ("answer_logits_batch", TokensOfTheAnswersWithoutTheirEnd),
]
"""Which check must catch which bug."""
