"""One plausible bug each, in the adapter of Kite: small subclasses of its parts, and the check that must name each.

What is no bug to anyone is left out: padding on the right that a causal model attends to, or a stop string that ends
no generation early (the text is cut all the same, only later).
"""

import dataclasses
import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from aim_sdk import Demonstration, Fingerprint, FusedTokens, Generation, PromptFormat, Query, Reading, load_image
from aim_sdk.backend.answers import stream_answer
from aim_sdk.backend.hashing import tensor_hash
from tests.conformance.third_party import unseen
from tests.conformance.third_party.adapter import KiteBackend, KiteInjector, KiteReader, Template, Turn
from tests.conformance.third_party.model import BOS, END, KiteModel, decode, encode

Part = type[KiteModel] | type[Template] | type[KiteReader] | type[KiteInjector] | type[KiteBackend]


def square(image: Any) -> Any:
    return load_image(image).resize((48, 48))


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


# Where fused tokens stand


class FusedBehindTheRole(KiteInjector):
    def join(self, opening: Tensor, context: list[Tensor], query: list[Tensor]) -> Tensor:
        return torch.cat([opening, query[0], *context, *query[1:]])


class FusedBeforeTheSystemText(KiteInjector):
    def join(self, opening: Tensor, context: list[Tensor], query: list[Tensor]) -> Tensor:
        return torch.cat([opening[:1], *context, opening[1:], *query])


class FusedBeforeBos(KiteInjector):
    def join(self, opening: Tensor, context: list[Tensor], query: list[Tensor]) -> Tensor:
        return torch.cat([*context, opening, *query])


class FusedBehindTheQuery(KiteInjector):
    def join(self, opening: Tensor, context: list[Tensor], query: list[Tensor]) -> Tensor:
        return torch.cat([opening, *query, *context])


class FusedTurned(KiteInjector):
    def context(self, context: Any, form: PromptFormat) -> list[Tensor]:
        return super().context(context, form)[::-1]


class FusedRounded(KiteInjector):
    def context(self, context: Any, form: PromptFormat) -> list[Tensor]:
        return [item.bfloat16().float() for item in super().context(context, form)]


class FusedDetached(KiteInjector):
    def context(self, context: Any, form: PromptFormat) -> list[Tensor]:
        return [item.detach() for item in super().context(context, form)]


class PlaceholderForNothing(KiteInjector):
    def context(self, context: Any, form: PromptFormat) -> list[Tensor]:
        return [item if len(item) else self.model.embed([0]) for item in super().context(context, form)]


# Interleaved demonstrations


class InterleavedWithoutImages(KiteInjector):
    def interleaved(self, item: Demonstration, form: PromptFormat) -> Tensor:
        return self.model.embed(self.template.turn(form, item.text, item.answer).text)


class InterleavedImageBehindTheAnswer(KiteInjector):
    def interleaved(self, item: Demonstration, form: PromptFormat) -> Tensor:
        text = self.model.embed(self.template.turn(form, item.text, item.answer).text)
        return torch.cat([text, self.model.see(load_image(item.image))])


class InterleavedImagesTurned(KiteInjector):
    def context(self, context: Any, form: PromptFormat) -> list[Tensor]:
        images = [getattr(item, "image", None) for item in context][::-1]
        turned = [
            dataclasses.replace(item, image=image) if isinstance(item, Demonstration) else item
            for item, image in zip(context, images, strict=True)
        ]
        return super().context(turned, form)


class InterleavedTurned(KiteInjector):
    def context(self, context: Any, form: PromptFormat) -> list[Tensor]:
        interleaved = bool(context) and isinstance(context[0], Demonstration)
        return super().context(context[::-1] if interleaved else context, form)


class InterleavedLastOnly(KiteInjector):
    def context(self, context: Any, form: PromptFormat) -> list[Tensor]:
        interleaved = bool(context) and isinstance(context[0], Demonstration)
        return super().context(context[-1:] if interleaved else context, form)


# Batches, caches, positions


class PaddingAttended(KiteInjector):
    def mask(self, rows: Sequence[Tensor]) -> Tensor:
        return torch.ones_like(super().mask(rows))


class PaddingCounted(KiteModel):
    def places(self, mask: Tensor) -> Tensor:
        return torch.arange(mask.shape[1]).expand_as(mask)


class RowsSwapped(KiteInjector):
    def prompts(self, queries: Any, contexts: Sequence[Any], form: PromptFormat) -> list[Tensor]:
        return super().prompts(queries, [*contexts[1:], contexts[0]], form)


class FirstImageForAll(KiteInjector):
    def see(self, queries: Sequence[Query]) -> list[Tensor]:
        return super().see([dataclasses.replace(query, image=queries[0].image) for query in queries])


class QuerySquashed(KiteInjector):
    def see(self, queries: Sequence[Query]) -> list[Tensor]:
        return [self.model.see(square(query.image)) for query in queries]


class LargeImagesCropped(KiteInjector):
    def see(self, queries: Sequence[Query]) -> list[Tensor]:
        return [self.model.see(load_image(query.image).crop((0, 0, 64, 64))) for query in queries]


class PrefixOfAnotherFormat(KiteInjector):
    def prefill(self, queries: Any, contexts: Any, form: PromptFormat, room: int) -> Any:
        shared, put = self.prefixes.shared, self.prefixes.put
        self.prefixes.shared = lambda scope, contexts: shared("", contexts)  # type: ignore[method-assign]
        self.prefixes.put = lambda scope, *rest: put("", *rest)  # type: ignore[method-assign]
        try:
            return super().prefill(queries, contexts, form, room)
        finally:
            self.prefixes.shared, self.prefixes.put = shared, put  # type: ignore[method-assign]


class PrefixStale(KiteInjector):
    def prefill(self, queries: Any, contexts: Any, form: PromptFormat, room: int) -> Any:
        last, mask, cache, lengths = super().prefill(queries, contexts, form, room)
        for keys, _ in cache if self.prefixes.info()["states"] else []:
            keys[:, :, 5:9] = 0
        return last, mask, cache, lengths


class ChoicesSeeEachOther(KiteInjector):
    def score(self, query: Query, context: Any, choices: Sequence[str], *, prompt_format: PromptFormat) -> Any:
        form = prompt_format
        found = [super().score(query, context, choices[:1], prompt_format=form)[0]]
        for place in range(1, len(choices)):
            joined = [choices[place - 1] + choices[place]]
            (row,) = super().score(query, context, joined, prompt_format=form)
            found.append(row[-len(encode(choices[place])) - self.template.lead(form) :])
        return found


# Choices of several queries


class BatchPaddingScored(KiteInjector):
    def prefill(self, *args: Any) -> Any:
        last, mask, cache, lengths = super().prefill(*args)
        return last, torch.ones_like(mask), cache, lengths


class BatchOfOneContext(KiteInjector):
    def score_batch(self, queries: Any, contexts: Any, choices: Any, *, prompt_format: PromptFormat) -> Any:
        return super().score_batch(queries, [contexts[0]] * len(queries), choices, prompt_format=prompt_format)


class BatchTurned(KiteInjector):
    def score_batch(self, *args: Any, **options: Any) -> Any:
        return super().score_batch(*args, **options)[::-1]


class BatchCutShort(KiteInjector):
    def score_batch(self, *args: Any, **options: Any) -> Any:
        return super().score_batch(*args, **options)[:2]


class BatchCountsItsPadding(KiteInjector):
    def score_batch(self, *args: Any, **options: Any) -> Any:
        found = super().score_batch(*args, **options)
        widest = max(scores.prompt_tokens or 0 for scores in found)
        return [dataclasses.replace(scores, prompt_tokens=widest) for scores in found]


# What is generated and scored


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


# The backend


class ConstantHash(KiteBackend):
    @cached_property
    def fingerprint(self) -> Fingerprint:
        return KiteBackend().fingerprint.model_copy(update={"weights_hash": "0" * 64})


class HashOfTheEmbeddings(KiteBackend):
    @cached_property
    def fingerprint(self) -> Fingerprint:
        found = tensor_hash([("embeddings", self.input_embeddings)])
        return KiteBackend().fingerprint.model_copy(update={"weights_hash": found})


class WrongSize(KiteBackend):
    @cached_property
    def fingerprint(self) -> Fingerprint:
        return KiteBackend().fingerprint.model_copy(update={"hidden_size": 64})


class HeadForEmbeddings(KiteBackend):
    @property
    def input_embeddings(self) -> Tensor:
        return self.model.head.weight


class EmbeddingsForHead(KiteBackend):
    @property
    def output_embeddings(self) -> Tensor:
        return self.model.tokens.weight


class PlainAnswerIsItsOwn(KiteBackend):
    """Asks the injector: what the adapter does to a prompt, it does to both."""

    template_class = SystemDroppedInChat

    def plain_answer(self, query: Query, *, prompt_format: PromptFormat, max_new_tokens: int, **options: Any) -> Any:
        shown = [options.get("demonstrations", ())]
        (made,) = self.injector.generate([query], shown, prompt_format=prompt_format, max_new_tokens=max_new_tokens)
        return list(made.token_ids)


# Models that say too little for the other checks to see anything


class Forgetful(KiteModel):
    """Sees its last dozen tokens."""

    def window(self, causal: Tensor) -> Tensor:
        return causal & ~causal.tril(causal.shape[1] - causal.shape[0] - 12)


class Blind(KiteModel):
    def see(self, image: Any) -> Tensor:
        return torch.zeros_like(super().see(image))


class Dull(KiteModel):
    """Says nearly the same whatever it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.head.weight.mul_(1e-6)


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
    ("identity_chat", FusedBehindTheRole),
    ("identity_behind_text", FusedBehindTheRole),
    ("identity_forward", FusedBeforeTheSystemText),
    ("identity_forward", FusedBeforeBos),
    ("identity_forward", FusedBehindTheQuery),
    ("identity_forward", FusedTurned),
    ("identity_forward", FusedRounded),
    ("gradient_reaches_the_projector_only", FusedDetached),
    ("zero_demonstrations", PlaceholderForNothing),
    ("interleaved", InterleavedWithoutImages),
    ("interleaved", InterleavedImageBehindTheAnswer),
    ("interleaved", InterleavedImagesTurned),
    ("interleaved", InterleavedTurned),
    ("interleaved", InterleavedLastOnly),
    ("identity_batch", PaddingAttended),
    ("identity_batch", PaddingCounted),
    ("identity_batch", RowsSwapped),
    ("identity_batch", FirstImageForAll),
    ("plain_model", QuerySquashed),
    ("plain_model", LargeImagesCropped),
    ("prefix_reuse_is_exact", PrefixOfAnotherFormat),
    ("prefix_reuse_is_exact", PrefixStale),
    ("cached_is_full", ChoicesSeeEachOther),
    ("score_batch_is_score", BatchPaddingScored),
    ("score_batch_is_score", BatchOfOneContext),
    ("score_batch_is_score", BatchTurned),
    ("score_batch_is_score", BatchCutShort),
    ("score_batch_is_score", BatchCountsItsPadding),
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
    ("fingerprint", ConstantHash),
    ("fingerprint", HashOfTheEmbeddings),
    ("fingerprint", WrongSize),
    ("reading_is_the_text", HeadForEmbeddings),
    ("reading_is_scored", EmbeddingsForHead),
    ("sensitivity", Forgetful),
    ("sensitivity", Blind),
    ("sensitivity", Dull),
    ("identity_chat", PlainAnswerIsItsOwn),
    *unseen.CAUGHT,
]
"""Which check must catch which bug."""


def mutant(bug: Part) -> KiteBackend:
    """Kite with one part replaced."""
    parts = {
        "model_class": KiteModel,
        "template_class": Template,
        "reader_class": KiteReader,
        "injector_class": KiteInjector,
    }
    replaced = {name: bug for name, part in parts.items() if issubclass(bug, part)}
    made: KiteBackend = (type("Mutant", (KiteBackend,), replaced) if replaced else bug)()
    return made
