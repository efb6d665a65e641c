"""Answers queries with fused tokens: what a backend author implements next."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from aim_sdk.backend.prefixes import PrefixCache
from aim_sdk.config import PromptFormat
from aim_sdk.errors import CapabilityError, InputError
from aim_sdk.types import ChoiceScores, Context, FusedTokens, Generation, Query


class Injector(ABC):
    """Answers queries with fused tokens in the frozen backbone's prompt."""

    prefixes: PrefixCache[Any] | None = None
    """What it has computed of contexts that come again; None where it computes every prompt whole."""

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

        ``log_probs=True`` fills `Generation.log_probs` with the backbone's own (before any sampling option).
        """

    @abstractmethod
    def stream(
        self, query: Query, context: Context, *, prompt_format: PromptFormat, max_new_tokens: int, **generation: Any
    ) -> Iterator[str]:
        """Yield the text of [`generate`][aim_sdk.backend.injector.Injector.generate] piece by piece."""

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
        """Return `score` of the same choices for each query of a batch; this one asks for one after the other.

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

    def log_probs(
        self,
        queries: Sequence[Query],
        contexts: Sequence[Context],
        answers: Sequence[str],
        *,
        prompt_format: PromptFormat,
        ended: bool = False,
    ) -> list[Float[Tensor, " tokens"]]:
        """Return the token log-probabilities of one answer per query, from one whole forward of the batch.

        The same numbers as `score`, but nothing is cached and gradients flow to the fused tokens: what a
        projector is trained on. ``ended`` adds the first token that the format writes after an answer, so that a
        trained projector keeps answers ending. A backend that only answers need not implement it.

        Raises:
            CapabilityError: the backend cannot.
        """
        raise CapabilityError(f"{type(self).__name__} gives no gradients: it has no `log_probs`.")

    def prepare_log_probs(
        self, queries: Sequence[Query], answers: Sequence[str], *, prompt_format: PromptFormat, ended: bool = False
    ) -> Callable[[Sequence[Sequence[FusedTokens]]], list[Float[Tensor, " tokens"]]]:
        """Do what needs no backbone (decode, tokenise) and return the forward of `log_probs`.

        It takes the contexts, which may only then be known. May run in another thread while the backbone computes.
        """

        def forward(contexts: Sequence[Sequence[FusedTokens]]) -> list[Float[Tensor, " tokens"]]:
            return self.log_probs(queries, contexts, answers, prompt_format=prompt_format, ended=ended)

        return forward
