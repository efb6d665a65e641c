"""Injectors that score the choices of several queries together, so that one query is a batch of one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from aim_sdk.backend.injector import Injector
from aim_sdk.config import PromptFormat
from aim_sdk.types import ChoiceScores, Context, Query


class ScoresTogether(Injector):
    """Its `score_each` is the one that computes."""

    def score(
        self, query: Query, context: Context, choices: Sequence[str], *, prompt_format: PromptFormat
    ) -> list[list[float]]:
        (found,) = self.score_each([query], [context], [choices], prompt_format=prompt_format)
        return [list(row) for row in found.log_probs]

    def score_batch(
        self,
        queries: Sequence[Query],
        contexts: Sequence[Context],
        choices: Sequence[str],
        *,
        prompt_format: PromptFormat,
    ) -> list[ChoiceScores]:
        return self.score_each(queries, contexts, [choices] * len(queries), prompt_format=prompt_format)

    @abstractmethod
    def score_each(
        self,
        queries: Sequence[Query],
        contexts: Sequence[Context],
        choices: Sequence[Sequence[str]],
        *,
        prompt_format: PromptFormat,
    ) -> list[ChoiceScores]: ...
