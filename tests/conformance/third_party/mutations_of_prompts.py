"""Bugs in the adapter of Kite: where fused tokens stand, and what a batch shares."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from aim_sdk import Demonstration, PromptFormat, Query, load_image
from tests.conformance.third_party.adapter import KiteInjector
from tests.conformance.third_party.model import KiteModel, encode
from tests.conformance.third_party.mutant import Part, square

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


class EachWithOnesChoices(KiteInjector):
    def score_each(self, queries: Any, contexts: Any, choices: Any, *, prompt_format: PromptFormat) -> Any:
        return super().score_each(queries, contexts, [choices[1]] * len(queries), prompt_format=prompt_format)


class EachTurned(KiteInjector):
    def score_each(self, queries: Any, contexts: Any, choices: Any, *, prompt_format: PromptFormat) -> Any:
        return super().score_each(queries[::-1], contexts[::-1], choices, prompt_format=prompt_format)


CAUGHT: list[tuple[str, Part]] = [
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
    ("score_each_is_score", EachWithOnesChoices),
    ("score_each_is_score", EachTurned),
]
"""Which check must catch which bug."""
