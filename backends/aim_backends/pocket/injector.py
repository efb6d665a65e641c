"""Answers queries with pocket: fused tokens are embeddings in its prompt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from aim_backends.pocket.cache import KVCache
from aim_backends.pocket.choices import choice_scores
from aim_backends.pocket.images import DecodedImages, ImageEncoder, ShownImages
from aim_backends.pocket.model import PocketModel
from aim_backends.pocket.prefilled import Prefilled
from aim_backends.shared.decoding import Decoder, Sampling
from aim_backends.shared.generated import generated
from aim_backends.shared.lengths import check_length
from aim_backends.shared.scoring import ScoresTogether
from aim_backends.shared.segments import PromptSegments, SegmentWriter
from aim_sdk.backend.constraints import Constraint, OneOf
from aim_sdk.backend.grammar import AnswerGrammar
from aim_sdk.backend.prefixes import PrefixCache, SharedPrefix
from aim_sdk.backend.prepared import AnswerLogits, PreparedAnswers
from aim_sdk.config import PromptFormat
from aim_sdk.errors import ImageError
from aim_sdk.types import ChoiceScores, Context, FusedTokens, Generation, Query


@dataclass(frozen=True, kw_only=True)
class TokenisedAnswers(PreparedAnswers):
    """Queries whose images are decoded, and the tokens of all texts."""

    images: DecodedImages
    segments: list[PromptSegments] = field(repr=False)
    shown: ShownImages | None
    """None: the contexts were not known."""


class PocketInjector(ScoresTogether):
    """Builds prompts of embeddings, padded on the left, and decodes with a key-value cache."""

    def __init__(self, model: PocketModel, images: ImageEncoder, prompts: SegmentWriter) -> None:
        self._model, self._images, self.prompts = model, images, prompts
        self.prefixes: PrefixCache[KVCache] = PrefixCache()
        self._constraint: Constraint | None = None

    def constrained(self, constraint: Constraint) -> PocketInjector:
        """See `aim_sdk.backend.capabilities.ConstrainsAnswers`."""
        AnswerGrammar(self._model.token_bytes, constraint)  # which refuses a schema that is not valid
        made = copy(self)
        made._constraint = constraint
        return made

    def contexts(self, contexts: Sequence[Context], prompt_format: PromptFormat) -> list[Tensor]:
        """Return the context of each query, BOS first, as embeddings ``(tokens, embed)``."""
        return self._contexts(contexts, prompt_format, self.prompts.opening(prompt_format))

    def _contexts(
        self,
        contexts: Sequence[Context],
        prompt_format: PromptFormat,
        first: list[int],
        known: ShownImages | None = None,
    ) -> list[Float[Tensor, "tokens embed"]]:
        """Return each context after the tokens ``first``; ``known``: demonstrations whose images are decoded."""
        shown = self._images.shown(contexts, known)
        visual = dict(zip(shown.items, self._images.run(shown.images), strict=True))
        opening = self._embed(first)
        rows = []
        for context in contexts:
            parts = [opening]
            for item in context:
                if isinstance(item, FusedTokens):
                    parts.append(item.embeddings.to(opening))
                else:
                    parts += self._segments(self.prompts.demonstration(item, prompt_format), visual[id(item)])
            rows.append(torch.cat(parts))
        return rows

    def queries(self, queries: Sequence[Query], prompt_format: PromptFormat) -> list[Tensor]:
        """Return each query as embeddings ``(tokens, embed)``."""
        visual = self._images.run(self._images_of(queries))
        segments = [self.prompts.query(query, prompt_format) for query in queries]
        return [torch.cat(self._segments(item, image)) for item, image in zip(segments, visual, strict=True)]

    def _images_of(self, queries: Sequence[Query]) -> DecodedImages:
        """Decode the queries' images; what is not an image names its query."""
        try:
            return self._images.prepare([query.image for query in queries])
        except ImageError:
            for place, query in enumerate(queries):
                try:
                    self._images.prepare([query.image])
                except ImageError as error:
                    error.query = place
                    raise
            raise

    @torch.no_grad()
    def generate(
        self,
        queries: Sequence[Query],
        contexts: Sequence[Context],
        *,
        prompt_format: PromptFormat,
        max_new_tokens: int,
        log_probs: bool = False,
        **generation: Any,
    ) -> list[Generation]:
        decoder = self._decoder(prompt_format, max_new_tokens, generation)
        if not queries:
            return []
        return generated(decoder, self.prefill(queries, contexts, prompt_format, decoder.limit), log_probs=log_probs)

    def stream(
        self, query: Query, context: Context, *, prompt_format: PromptFormat, max_new_tokens: int, **generation: Any
    ) -> Iterator[str]:
        decoder = self._decoder(prompt_format, max_new_tokens, generation)
        return decoder.stream(self.prefill([query], [context], prompt_format, decoder.limit))

    def _decoder(self, prompt_format: PromptFormat, max_new_tokens: int, generation: Mapping[str, Any]) -> Decoder:
        sampling = Sampling.parse(dict(generation), "pocket")
        if isinstance(self._constraint, OneOf):
            self.prompts.check_choices(self._constraint.choices, prompt_format)
        return Decoder(self._model, prompt_format, max_new_tokens, sampling, self._constraint)

    @torch.no_grad()
    def score_each(
        self,
        queries: Sequence[Query],
        contexts: Sequence[Context],
        choices: Sequence[Sequence[str]],
        *,
        prompt_format: PromptFormat,
    ) -> list[ChoiceScores]:
        """Run the prompts in one forward, and the choices of several queries together after it."""
        if not queries:
            return []
        ids = [[self.prompts.choice(choice, prompt_format) for choice in own] for own in choices]
        longest = max((len(choice) for own in ids for choice in own), default=0)
        return choice_scores(self._model, self.prefill(queries, contexts, prompt_format, longest), ids)

    def prepare_answers(
        self,
        queries: Sequence[Query],
        answers: Sequence[str],
        *,
        prompt_format: PromptFormat,
        ended: bool = False,
        contexts: Sequence[Context] | None = None,
    ) -> TokenisedAnswers:
        """See `aim_sdk.backend.capabilities.Trainable`."""
        return TokenisedAnswers(
            tuple(queries),
            tuple(answers),
            tuple(tuple(self.prompts.choice(answer, prompt_format, ended=ended)) for answer in answers),
            prompt_format,
            ended,
            images=self._images_of(queries),
            segments=[self.prompts.query(query, prompt_format) for query in queries],
            shown=None if contexts is None else self._images.shown(contexts),
        )

    def answer_logits(self, prepared: PreparedAnswers, contexts: Sequence[Context]) -> list[AnswerLogits]:
        """See `aim_sdk.backend.capabilities.Trainable`."""
        assert isinstance(prepared, TokenisedAnswers)
        if not len(prepared):
            return []
        opening = self.prompts.opening(prepared.prompt_format)
        before = self._contexts(contexts, prepared.prompt_format, opening, prepared.shown)
        images = self._images.run(prepared.images)
        rows = [
            torch.cat([context, *self._segments(segment, image), self._embed(answer[:-1])])
            for context, segment, image, answer in zip(
                before, prepared.segments, images, prepared.token_ids, strict=True
            )
        ]
        return self._answer_logits(rows, prepared.token_ids)

    def _answer_logits(self, rows: list[Tensor], ids: Sequence[Sequence[int]]) -> list[AnswerLogits]:
        """Run whole prompts ``(tokens, embed)``, padded on the right; the head sees the places before ``ids``."""
        check_length("pocket", self._model.lm.spec.context, [len(row) for row in rows], 1)
        hidden = self._model.lm(pad_sequence(rows, batch_first=True))  # padding comes after everything that is used
        ends = [state[len(row) - len(answer) : len(row)] for state, row, answer in zip(hidden, rows, ids, strict=True)]
        counts, logits = [len(answer) for answer in ids], self._model.lm.head(torch.cat(ends))  # (places, vocabulary)
        tokens = torch.tensor([token for answer in ids for token in answer], device=hidden.device)
        return [
            AnswerLogits(*parts) for parts in zip(torch.split(tokens, counts), torch.split(logits, counts), strict=True)
        ]

    @torch.no_grad()
    def prefill(
        self, queries: Sequence[Query], contexts: Sequence[Context], prompt_format: PromptFormat, new_tokens: int
    ) -> Prefilled:
        """Run the prompts; what was computed before, or is in several rows, is not run again."""
        opening, after = self.prompts.opening(prompt_format), self.queries(queries, prompt_format)
        shared = self.prefixes.shared(prompt_format, contexts)
        reused = contexts[0][: len(shared.keys)] if shared else []
        rests = [context[len(reused) :] for context in contexts]
        places: dict[tuple[int, ...], int] = {}
        rows = [places.setdefault(tuple(map(id, rest)), len(places)) for rest in rests]
        before = self._contexts(
            [rests[rows.index(place)] for place in range(len(places))], prompt_format, [] if shared else opening
        )
        prefix = len(opening) + sum(len(item) for item in reused if isinstance(item, FusedTokens)) if shared else 0
        check_length(
            "pocket",
            self._model.lm.spec.context,
            [prefix + len(before[row]) + len(query) for row, query in zip(rows, after, strict=True)],
            new_tokens,
            [len(opening) + len(query) for query in after],
            list(map(len, contexts)),
        )
        cache = self._prefix(shared, reused, prompt_format) if shared else KVCache()
        mask = torch.ones(1, prefix, dtype=torch.bool, device=self._model.device)
        if len(before) == len(after) or not any(rests):
            after = [torch.cat([before[row], query]) for row, query in zip(rows, after, strict=True)]
        else:
            cache, mask = cache.expand(len(before)), mask.expand(len(before), -1)
            _, mask = self._run(before, cache, mask)
            cache, mask = cache.select(torch.tensor(rows, device=mask.device)), mask[rows]
        cache, mask = cache.expand(len(after)), mask.expand(len(after), -1)
        hidden, mask = self._run(after, cache, mask)
        return Prefilled(self._model, cache, mask, hidden[:, -1:])

    def _run(self, rows: list[Tensor], cache: KVCache, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Run embeddings after ``cache``, which grows; return their last hidden states and the mask of all tokens."""
        embeddings, own = _pad_left(rows)
        mask = torch.cat([mask, own], 1)
        return self._model.lm(embeddings, attention_mask=mask, cache=cache), mask

    def _prefix(self, shared: SharedPrefix[KVCache], context: Context, prompt_format: PromptFormat) -> KVCache:
        """Return the cache of the opening and ``context``, from what is known of it; it is shared and must not grow."""
        if shared.state is not None and shared.done == len(context):
            return shared.state
        cache = KVCache() if shared.state is None else shared.state.copy()
        first = self.prompts.opening(prompt_format) if shared.state is None else []
        (embeddings,) = self._contexts([context[shared.done :]], prompt_format, first)
        self._model.lm(embeddings[None], cache=cache)
        self.prefixes.put(prompt_format, shared.keys, cache, cache.nbytes)
        return cache

    def _segments(self, segments: PromptSegments, image: Tensor) -> list[Tensor]:
        return [self._embed(segments.before), image, self._embed(segments.after), self._embed(segments.answer)]

    def _embed(self, ids: Sequence[int]) -> Tensor:
        return self._model.lm.embed(torch.tensor(ids, dtype=torch.long, device=self._model.device))


def _pad_left(rows: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Stack rows ``(tokens, embed)`` of any lengths; return them with their mask ``(batch, longest)``."""
    padded = pad_sequence(rows, batch_first=True, padding_side="left")
    lengths = torch.tensor([len(row) for row in rows], device=padded.device)
    return padded, torch.arange(padded.shape[1], device=padded.device).flip(0) < lengths[:, None]
