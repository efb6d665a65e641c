"""How likely continuations are, in the two numbers that lmms-eval wants of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from aim_sdk.injection.contexts import Contexts
from aim_sdk.pipeline import AIMPipeline
from aim_sdk.types import Query


def likelihoods(
    pipe: AIMPipeline, query: Query, continuations: Iterable[str], asked: Mapping[str, Any]
) -> list[tuple[float, bool]]:
    """Return each continuation's mean negative log-probability a token (nats), and whether it is the greedy answer.

    Args:
        pipe: what answers.
        query: what the continuations answer.
        continuations: none blank; the prompt format writes the blanks that lead an answer, so theirs are left out.
        asked: ``shots``, ``mode`` and ``selector``, as the pipeline's methods take them.
    """
    choices = [text.strip() for text in continuations]
    (context,) = Contexts(pipe.encoder, pipe.bank).contexts([query], demonstrations=None, **asked)
    scores = pipe.backend.injector.score(query, context, choices, prompt_format=pipe.prompt_format)
    greedy = {length: _greedy(pipe, query, length, asked) for length in {len(tokens) for tokens in scores}}
    return [
        (-sum(tokens) / len(tokens), greedy[len(tokens)] == choice)
        for choice, tokens in zip(choices, scores, strict=True)
    ]


def _greedy(pipe: AIMPipeline, query: Query, tokens: int, asked: Mapping[str, Any]) -> str:
    (answer,) = pipe.generate([query], max_new_tokens=tokens, **asked)
    return answer.text
