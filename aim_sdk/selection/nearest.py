"""Nearest neighbours: a vote of the demonstrations whose vectors are most like a query's. The honest baseline of AIM.

Every bank keeps a vector of each demonstration (its pooled reading, see `aim_sdk.selection.builtin.ReadingSelector`). A
query is read once, as a demonstration is, and the answers of the ``shots`` nearest vote. There is no prompt, nothing
is generated or scored, and an answer is always one of the demonstrations'. It suits closed answers: classes, yes or no.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aim_sdk.bank.adding import POOLED
from aim_sdk.bank.bank import DemonstrationBank
from aim_sdk.bank.store import Where
from aim_sdk.bank.view import BankView
from aim_sdk.errors import InputError, ShotsError
from aim_sdk.selection.base import settled
from aim_sdk.selection.builtin import ReadingSelector
from aim_sdk.types import Demonstration, Query

TEMPERATURE = 0.1
"""A neighbour whose cosine is higher by this much counts e (2.72) times as much."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A demonstration near a query."""

    key: str
    answer: str
    similarity: float
    """The cosine of the two readings, relative to the bank's mean."""


def vote(
    similarities: Sequence[float], answers: Sequence[str], *, temperature: float = TEMPERATURE
) -> dict[str, float]:
    """Let neighbours vote, each with weight ``exp(similarity / temperature)``.

    Args:
        similarities: of each neighbour to the query, a cosine (-1 to 1).
        answers: each neighbour's; surrounding blanks do not count.
        temperature: above 0, in units of the similarity; ``math.inf`` counts all neighbours alike.

    Returns:
        The share of each answer that a neighbour has, the highest first; they sum to 1. Of equal shares, that with the
        nearest neighbour comes first, and of equally near ones the first given. Empty without neighbours.

    Raises:
        InputError: a similarity is not finite, the two differ in length, or the temperature is not above 0.
    """
    if len(similarities) != len(answers):
        raise InputError(f"vote: {len(similarities)} similarities and {len(answers)} answers; expected as many.")
    if not isinstance(temperature, int | float) or not temperature > 0:  # and not NaN
        raise InputError(f"vote: temperature={temperature!r}; expected a number above 0.")
    if not all(map(math.isfinite, similarities)):
        raise InputError("vote: a similarity is NaN or infinite; expected cosines, -1 to 1.")
    top = max(similarities, default=0.0)
    weights: dict[str, list[float]] = defaultdict(list)
    for similarity, answer in sorted(zip(similarities, answers, strict=True), key=lambda pair: -pair[0]):
        weights[answer.strip()].append(math.exp((float(similarity) - top) / temperature))
    total = math.fsum(weight for one in weights.values() for weight in one)
    shares = {answer: math.fsum(one) / total for answer, one in weights.items()}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def log_shares(shares: Mapping[str, float], choices: Sequence[str]) -> list[float]:
    """The natural log of each choice's share of the votes; a choice without votes gets the log of the smallest number,
    -708.4.

    Choices and answers are compared letter by letter, without surrounding blanks.
    """
    by_text: dict[str, float] = defaultdict(float)
    for answer, share in shares.items():
        by_text[answer.strip()] += share
    return [math.log(max(by_text.get(choice.strip(), 0.0), sys.float_info.min)) for choice in choices]


def votes(
    bank: DemonstrationBank,
    queries: Sequence[Query],
    shots: int | None,
    *,
    temperature: float = TEMPERATURE,
    where: Where | None = None,
    balance: str | None = None,
) -> list[dict[str, float]]:
    """Let the ``shots`` nearest demonstrations of each query vote (`vote`); a query's own are never among them.

    Args:
        bank: of a pipeline: it reads the queries.
        queries: each is read once.
        shots: how many vote; None: up to `DEFAULT_SHOTS`.
        temperature: see `vote`.
        where, balance: which demonstrations may vote, as in [`Selector`][aim_sdk.selection.base.Selector].

    Raises:
        ShotsError: the bank holds fewer that may be shown.
        InputError: see `vote`; or the bank was opened without a backbone.
    """
    return [
        vote([one.similarity for one in near], [one.answer for one in near], temperature=temperature)
        for near in neighbours(bank, queries, shots, where=where, balance=balance)
    ]


def neighbours(
    bank: DemonstrationBank,
    queries: Sequence[Query],
    shots: int | None,
    *,
    where: Where | None = None,
    balance: str | None = None,
) -> list[list[Neighbour]]:
    """The ``shots`` demonstrations whose readings are most like each query's, the nearest first; see `votes`."""
    selector = ReadingSelector(where=where, balance=balance)

    def choose(view: BankView) -> list[list[Neighbour]]:
        return [
            [Neighbour(key, view.demonstration(key).answer, similarity) for key, similarity in near]
            for near in selector.ranked(view, queries, shots)
        ]

    return settled(bank, choose)


def votes_among(
    bank: DemonstrationBank,
    queries: Sequence[Query],
    demonstrations: Sequence[Sequence[Demonstration]],
    shots: int | None,
    *,
    temperature: float = TEMPERATURE,
) -> list[dict[str, float]]:
    """Like `votes`, but each query has demonstrations of its own, of which the nearest vote.

    Their similarities are cosines relative to their own mean, so a query's votes do not depend on what else is asked.

    Args:
        bank: of a pipeline: it reads the queries, and those of the demonstrations that it does not hold yet.
        queries, shots, temperature: see `votes`.
        demonstrations: each query's; some may be several queries'.

    Raises:
        ShotsError: a query has fewer that may be shown.
        InputError: see `vote`; or a demonstration or a query cannot be read.
    """
    unique = {id(item): item for items in demonstrations for item in items}
    keys = bank.add(list(unique.values()))
    places = {key: place for place, key in enumerate(bank)}
    rows = dict(zip(unique, (places[key] for key in keys), strict=True))
    view = bank.view()
    vectors = view.features(POOLED)
    found: list[dict[str, float]] = []
    asked = view.pooled_queries(queries) if queries else ()
    for query, items, vector in zip(queries, demonstrations, asked, strict=True):
        own = set(view.own(query))
        given = [(rows[id(item)], item.answer) for item in items]
        if not given:
            found.append({})
            continue
        others = [place for place, (row, _) in enumerate(given) if row not in own]
        if len(others) < (shots or 0):
            raise ShotsError(
                f"{shots} shots asked for, but only {len(others)} of a query's demonstrations may be shown."
            )
        similar = cosines(vector, vectors[[row for row, _ in given]])
        near = sorted(others, key=lambda place: -similar[place])[:shots]
        found.append(vote([float(similar[p]) for p in near], [given[p][1] for p in near], temperature=temperature))
    return found


def cosines(query: NDArray[np.floating], vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    """Cosines ``(n,)`` of a query's vector ``(dim,)`` and others ``(n, dim)``, relative to the others' mean.

    All readings of an LLM point in much the same direction; only the rest tells them apart. A vector equal to the mean
    has similarity 0.
    """
    mean = vectors.mean(0, dtype=np.float64)
    centred, asked = vectors - mean, query - mean
    norms = np.linalg.norm(centred, axis=1) * np.linalg.norm(asked)
    norms[norms <= 1e-9 * float(mean @ mean)] = np.inf
    products: NDArray[np.float64] = centred @ asked / norms
    return products
