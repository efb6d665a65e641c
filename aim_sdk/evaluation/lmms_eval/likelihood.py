"""How likely continuations are, as the two numbers that lmms-eval wants for each."""

from __future__ import annotations

from collections.abc import Iterable

from aim_sdk.injection.few_shot import FewShotModel
from aim_sdk.injection.shots import Shots
from aim_sdk.types import Query


def likelihoods(
    pipe: FewShotModel, query: Query, continuations: Iterable[str], shots: Shots
) -> list[tuple[float, bool]]:
    """Return each continuation's mean negative log-probability per token (nats), and whether it is the greedy answer.

    Args:
        pipe: what answers.
        query: what the continuations answer.
        continuations: none blank; the prompt format writes the blanks that lead an answer, so theirs are left out.
        shots: what comes before it.
    """
    choices = [text.strip() for text in continuations]
    scores = pipe.token_log_probs(query, choices, shots=shots)
    greedy = {length: _greedy(pipe, query, length, shots) for length in {len(tokens) for tokens in scores}}
    return [
        (-sum(tokens) / len(tokens), greedy[len(tokens)] == choice)
        for choice, tokens in zip(choices, scores, strict=True)
    ]


def _greedy(pipe: FewShotModel, query: Query, tokens: int, shots: Shots) -> str:
    (answer,) = pipe.generate([query], max_new_tokens=tokens, shots=shots)
    return answer.text
