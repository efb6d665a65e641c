"""Answers queries with llama.cpp: the whole prompt is rows of embeddings."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from copy import copy
from typing import Any

import torch
from torch import Tensor

from aim_backends.llamacpp.context import LlamaContext, State
from aim_backends.llamacpp.loaded import LoadedModel
from aim_backends.llamacpp.prefilled import Prefilled
from aim_backends.shared.decoding import Decoder, Sampling
from aim_backends.shared.generated import generated
from aim_backends.shared.lengths import check_length
from aim_backends.shared.rows import PromptRows
from aim_backends.shared.scoring import ScoresTogether
from aim_backends.shared.text import TextModel
from aim_sdk.backend.constraints import Constraint, OneOf
from aim_sdk.backend.grammar import AnswerGrammar
from aim_sdk.backend.prefixes import PrefixCache, SharedPrefix
from aim_sdk.config import PromptFormat
from aim_sdk.support.finite import not_finite
from aim_sdk.types import ChoiceScores, Context, Generation, Query


class LlamaCppInjector(ScoresTogether):
    """A context for each batch: a sequence for each query, which begins with the prefix that all share."""

    def __init__(self, model: LoadedModel, text: TextModel, rows: PromptRows) -> None:
        self._model, self._text, self.rows = model, text, rows
        self.prefixes: PrefixCache[State] = PrefixCache()
        self._constraint: Constraint | None = None

    def constrained(self, constraint: Constraint) -> LlamaCppInjector:
        """See `aim_sdk.backend.capabilities.ConstrainsAnswers`."""
        AnswerGrammar(self._text.token_bytes, constraint)  # which refuses a schema that is not valid
        made = copy(self)
        made._constraint = constraint
        return made

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
        with self.prefill(queries, contexts, prompt_format, decoder.limit) as prompt:
            return generated(decoder, prompt, log_probs=log_probs)

    def stream(
        self, query: Query, context: Context, *, prompt_format: PromptFormat, max_new_tokens: int, **generation: Any
    ) -> Iterator[str]:
        decoder = self._decoder(prompt_format, max_new_tokens, generation)
        return _streamed(decoder, self.prefill([query], [context], prompt_format, decoder.limit))

    @torch.no_grad()
    def score_each(
        self,
        queries: Sequence[Query],
        contexts: Sequence[Context],
        choices: Sequence[Sequence[str]],
        *,
        prompt_format: PromptFormat,
    ) -> list[ChoiceScores]:
        """Run the prompts, and after each its own choices, one by one."""
        if not queries:
            return []
        ids = [[self.rows.prompts.choice(choice, prompt_format) for choice in own] for own in choices]
        longest = max((len(choice) for own in ids for choice in own), default=0)
        made = []
        with self.prefill(queries, contexts, prompt_format, longest) as prompt:
            for place, own in enumerate(ids):
                scores = tuple(tuple(prompt.log_probs(place, choice)) for choice in own)
                if not all(math.isfinite(value) for one in scores for value in one):
                    error = not_finite("log-probabilities", torch.float32)
                    error.query = place
                    raise error
                made.append(ChoiceScores(scores, prompt.lengths[place]))
        return made

    def _decoder(self, prompt_format: PromptFormat, max_new_tokens: int, generation: dict[str, Any]) -> Decoder:
        sampling = Sampling.parse(generation, self._text.title)
        if isinstance(self._constraint, OneOf):
            self.rows.prompts.check_choices(self._constraint.choices, prompt_format)
        return Decoder(self._text, prompt_format, max_new_tokens, sampling, self._constraint)

    def prefill(
        self, queries: Sequence[Query], contexts: Sequence[Context], prompt_format: PromptFormat, new_tokens: int
    ) -> Prefilled:
        """Run the prompts; the prefix that all share is run once, or not at all if it is known."""
        opening = self.rows.embed(self.rows.prompts.opening(prompt_format))
        after = self.rows.queries(queries, prompt_format)
        before = [self.rows.context(context, prompt_format) for context in contexts]
        lengths = [len(opening) + sum(map(len, items)) + len(query) for items, query in zip(before, after, strict=True)]
        bare, shots = [len(opening) + len(query) for query in after], list(map(len, contexts))
        check_length(self._model.title, self._model.context, lengths, new_tokens, bare, shots)
        shared = self.prefixes.shared(prompt_format, contexts)
        state = None if shared is None else self._prefix(shared, [opening, *before[0]], prompt_format)
        reused = 0 if shared is None else len(shared.keys)
        first = [opening] if state is None else []
        rests = [torch.cat([*first, *items[reused:], query]) for items, query in zip(before, after, strict=True)]
        context = LlamaContext(self._model, len(rests), max(map(len, rests)) + new_tokens, begins=state)
        try:
            logits = [context.run(place, rest) for place, rest in enumerate(rests)]
        except BaseException:
            context.close()
            raise
        return Prefilled(context, torch.stack(logits))

    def _prefix(self, shared: SharedPrefix[State], items: Sequence[Tensor], prompt_format: PromptFormat) -> State:
        """The keys and values of ``items`` (the opening, then demonstrations), as far as they are shared."""
        count = len(shared.keys)
        if shared.state is not None and shared.done == count:
            return shared.state
        rows = torch.cat(list(items[1 + shared.done if shared.state else 0 : 1 + count]))
        with LlamaContext(self._model, 1, len(rows), begins=shared.state) as context:
            context.run(0, rows)
            made = context.saved(0)
        self.prefixes.put(prompt_format, shared.keys, made, len(made.data))
        return made


def _streamed(decoder: Decoder, prompt: Prefilled) -> Generator[str, None, Generation]:
    with prompt:
        return (yield from decoder.stream(prompt))
