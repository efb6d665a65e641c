"""Nearest neighbours: a vote of the demonstrations whose vectors are most like a query's. The honest baseline of AIM.

Every bank keeps a vector of each demonstration (its pooled reading, see `aim_sdk.selection.ReadingSelector`). A
query is read once, as a demonstration is, and the answers of the ``shots`` nearest vote. There is no prompt, nothing
is generated or scored, and an answer is always one of the demonstrations'. It suits closed answers: classes, yes or no.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

from aim_sdk.bank.bank import DemonstrationBank
from aim_sdk.bank.store import Where
from aim_sdk.errors import InputError
from aim_sdk.selection import ReadingSelector
from aim_sdk.types import Query

TEMPERATURE = 0.1
"""A neighbour whose cosine is higher by this much counts e (2.72) times as much."""


def vote(
    similarities: Sequence[float], answers: Sequence[str], *, temperature: float = TEMPERATURE
) -> dict[str, float]:
    """Let neighbours vote, each with weight ``exp(similarity / temperature)``.

    Args:
        similarities: of each neighbour to the query, a cosine (-1 to 1).
        answers: each neighbour's.
        temperature: above 0, in units of the similarity; ``math.inf`` counts all neighbours alike.

    Returns:
        The share of each answer that a neighbour has, the highest first; they sum to 1. Of equal shares, that with the
        nearest neighbour comes first, and of equally near ones the first given. Empty without neighbours.

    Raises:
        InputError: a similarity is not finite, the two differ in length, or the temperature is not above 0.
    """
    if len(similarities) != len(answers):
        raise InputError(f"vote: {len(similarities)} similarities and {len(answers)} answers; expected as many.")
    if not temperature > 0:  # nor NaN
        raise InputError(f"vote: temperature={temperature!r}; expected a number above 0.")
    if not all(map(math.isfinite, similarities)):
        raise InputError("vote: a similarity is NaN or infinite; expected cosines, -1 to 1.")
    top = max(similarities, default=0.0)
    weights: dict[str, list[float]] = defaultdict(list)
    for similarity, answer in sorted(zip(similarities, answers, strict=True), key=lambda pair: -pair[0]):
        weights[answer].append(math.exp((float(similarity) - top) / temperature))
    total = math.fsum(weight for one in weights.values() for weight in one)
    shares = {answer: math.fsum(one) / total for answer, one in weights.items()}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def votes(
    bank: DemonstrationBank,
    queries: Sequence[Query],
    shots: int | None,
    *,
    temperature: float = TEMPERATURE,
    where: Where | None = None,
) -> list[dict[str, float]]:
    """Let the ``shots`` nearest demonstrations of each query vote (`vote`); a query's own are never among them.

    Args:
        bank: of a pipeline: it reads the queries.
        queries: each is read once.
        shots: how many vote; None: all.
        temperature: see `vote`.
        where: only demonstrations with that metadata vote, as in [`Selector`][aim_sdk.selection.Selector].

    Raises:
        ShotsError: the bank holds fewer that may be shown.
        InputError: see `vote`; or the bank was opened without a backbone.
    """
    found = ReadingSelector(where=where).ranked(bank, queries, shots)
    return [
        vote(
            [similarity for _, similarity in near],
            [bank[key].demonstration.answer for key, _ in near],
            temperature=temperature,
        )
        for near in found
    ]
