"""Single demonstrations: which harm or help the others, and whose answers are probably wrong."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from aim_sdk.assessment.choice import error_of

_FOLDS: Final = 10
_FEWEST: Final = 3
_STRENGTH: Final = 2.5
"""Of the regression's penalty, for vectors of length 1: weak enough to see classes, too strong to learn single ones."""

Removal = tuple[int, str]
"""An item's place, and the key of a demonstration that it was shown."""


class Influence(BaseModel):
    """What taking one demonstration out of the bank changes."""

    model_config = ConfigDict(frozen=True)
    key: str = Field(description="of the demonstration")
    effect: float = Field(
        description="mean change by its presence, in the metric's unit (closed answers: of the right answer's "
        "probability, in points); below 0 it harms"
    )
    standard_error: float | None = Field(description="of the effect; none for one query")
    shown: int = Field(description="queries that were shown it, and asked once more without it")

    @property
    def harms(self) -> bool:
        """Whether it harms more than its error: at least three queries, by two standard errors."""
        return self.shown >= _FEWEST and self.effect + 2 * (self.standard_error or 0.0) < 0


class Doubtful(BaseModel):
    """A demonstration whose answer the others contradict."""

    model_config = ConfigDict(frozen=True)
    key: str = Field(description="of the demonstration")
    answer: str = Field(description="its own")
    likelier: str = Field(description="what the others say")
    own_probability: float = Field(description="of its own answer")
    likelier_probability: float = Field(description="of the other answer")


def removals(shown: Sequence[Sequence[str]], limit: int, seed: int = 0) -> list[Removal]:
    """At most ``limit`` pairs of an item and something that it was shown, each demonstration about equally often."""
    by_key: dict[str, list[int]] = defaultdict(list)
    for place, keys in enumerate(shown):
        for key in keys:
            by_key[key].append(place)
    rng = random.Random(seed)
    turns = [
        (turn, rng.random(), place, key)
        for key, places in sorted(by_key.items())
        for turn, place in enumerate(rng.sample(places, len(places)))
    ]
    return [(place, key) for _, _, place, key in sorted(turns)[:limit]]


def influences(with_it: NDArray[np.float64], pairs: Sequence[Removal], without_it: Sequence[float]) -> list[Influence]:
    """The effect of each demonstration, the most harmful first.

    Args:
        with_it: what each item reached, ``(items,)``.
        pairs: what was asked once more.
        without_it: what each of them reached.
    """
    changes: dict[str, list[float]] = defaultdict(list)
    for (place, key), without in zip(pairs, without_it, strict=True):
        changes[key].append(float(with_it[place]) - without)
    found = [
        Influence(key=key, effect=float(np.mean(one)), standard_error=error_of(one), shown=len(one))
        for key, one in changes.items()
    ]
    return sorted(found, key=lambda one: one.effect)


def doubtful(names: Sequence[str], answers: Sequence[str], vectors: NDArray[np.float32]) -> list[Doubtful]:
    """Demonstrations for which another answer is likelier, the clearest first.

    This is the rule of confident learning (Northcutt, Jiang and Chuang, 2021, arXiv 1911.00068) in its simplest form: a
    logistic regression on the readings predicts each answer from demonstrations of other folds. Answers that are given
    fewer than three times are not judged, and none is if the regression is hardly better than the commonest answer.

    Args:
        names: the demonstrations' keys.
        answers: their own.
        vectors: their pooled readings, ``(demonstrations, hidden)``.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    counts = Counter(answers)
    judged = [place for place, answer in enumerate(answers) if counts[answer] >= _FEWEST]
    classes = sorted({answers[place] for place in judged})
    if len(classes) < 2:
        return []
    centred = vectors[judged] - vectors.mean(0)
    centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    places = np.array([classes.index(answers[place]) for place in judged])
    folds = StratifiedKFold(min(_FOLDS, min(counts[name] for name in classes)), shuffle=True, random_state=0)
    model = LogisticRegression(C=_STRENGTH, max_iter=1000)
    probabilities = cross_val_predict(model, centred, places, cv=folds, method="predict_proba")
    if not _better_than_the_commonest(probabilities.argmax(1) == places, np.bincount(places).max()):
        return []
    found = [
        Doubtful(
            key=names[place],
            answer=classes[own],
            likelier=classes[top],
            own_probability=float(row[own]),
            likelier_probability=float(row[top]),
        )
        for place, own, row in zip(judged, places.tolist(), probabilities, strict=True)
        if (top := int(row.argmax())) != own
    ]
    return sorted(found, key=lambda one: one.own_probability - one.likelier_probability)


def _better_than_the_commonest(right: NDArray[np.bool_], commonest: int) -> bool:
    """Whether predictions are right more often than the commonest answer, by two standard errors."""
    share = float(right.mean())
    return share - 2 * math.sqrt(share * (1 - share) / len(right)) > commonest / len(right)
