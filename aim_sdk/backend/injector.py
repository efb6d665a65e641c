"""Answers queries with fused tokens: what a backend author implements next."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

from aim_sdk.config import PromptFormat
from aim_sdk.errors import InputError
from aim_sdk.types import ChoiceScores, Context, Generation, Query


class Injector(ABC):
    """Answers queries with fused tokens in the frozen backbone's prompt."""

    @abstractmethod
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
        """Answer one batch of queries, each after its own context; greedy unless ``generation`` says otherwise.

        One answer per query, in their order. With an option that makes several, all answers to one query come before
        those to the next.
        ``log_probs=True`` fills `Generation.log_probs` with the backbone's own (before any sampling option).
        """

    @abstractmethod
    def stream(
        self, query: Query, context: Context, *, prompt_format: PromptFormat, max_new_tokens: int, **generation: Any
    ) -> Iterator[str]:
        """Yield the text of [`generate`][aim_sdk.backend.injector.Injector.generate] piece by piece.

        A generator may return the `Generation` at its end, for callers that count tokens or ask how the answer ended.
        """

    @abstractmethod
    def score(
        self, query: Query, context: Context, choices: Sequence[str], *, prompt_format: PromptFormat
    ) -> list[list[float]]:
        """Return each choice's token log-probabilities (natural log) as the answer; the prompt is computed once."""

    def score_batch(
        self,
        queries: Sequence[Query],
        contexts: Sequence[Context],
        choices: Sequence[str],
        *,
        prompt_format: PromptFormat,
    ) -> list[ChoiceScores]:
        """Return `score` of the same choices for each query of a batch; by default, one query after the other.

        A backend may run several prompts in one forward; the numbers stay those of `score`, up to float noise.
        """
        made = []
        for place, (query, context) in enumerate(zip(queries, contexts, strict=True)):
            try:
                scores = self.score(query, context, choices, prompt_format=prompt_format)
            except InputError as error:
                error.query = place
                raise
            made.append(ChoiceScores(tuple(map(tuple, scores))))
        return made

    def score_each(
        self,
        queries: Sequence[Query],
        contexts: Sequence[Context],
        choices: Sequence[Sequence[str]],
        *,
        prompt_format: PromptFormat,
    ) -> list[ChoiceScores]:
        """Return `score_batch` of queries that have choices of their own; by default, one query after the other."""
        made = []
        for place, (query, context, own) in enumerate(zip(queries, contexts, choices, strict=True)):
            try:
                made += self.score_batch([query], [context], own, prompt_format=prompt_format)
            except InputError as error:
                error.query = place
                raise
        return made
