"""From outcomes to scores: one number for each item, by the kind of its answers."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Literal, TypeAlias

from aim_sdk.assessment.asking import Outcome
from aim_sdk.errors import InputError
from aim_sdk.injection.choices import MOST_CHOICES, checked_choices, folded
from aim_sdk.support.cider import cider_d

Metric: TypeAlias = Literal["accuracy", "exact match", "CIDEr-D"]
_PHRASE = 3
"""Words of an answer that must be met exactly; longer ones are compared as captions."""
_LABEL = 100
"""Characters of the longest answer of a closed set."""


def closed_set(answers: Sequence[str]) -> list[str] | None:
    """The distinct answers, if they are a closed set; or None.

    That is: at least two, at most 64, each given twice on average, and none longer than 100 characters.
    """
    found = list(dict.fromkeys(answer.strip() for answer in answers))
    if not 2 <= len(found) <= min(MOST_CHOICES, len(answers) // 2) or max(map(len, found)) > _LABEL:
        return None
    try:
        return checked_choices(found)
    except InputError:  # they differ in blanks alone, for example
        return None


def metric_of(answers: Sequence[str], choices: Sequence[str] | None) -> Metric:
    """How answers are scored: by choice, by equality of short phrases, or as captions."""
    if choices is not None:
        return "accuracy"
    return "exact match" if statistics.median(len(answer.split()) for answer in answers) <= _PHRASE else "CIDEr-D"


def unit_of(metric: Metric) -> str:
    """What stands after a score."""
    return " CIDEr" if metric == "CIDEr-D" else " %"


def scores_of(outcomes: Sequence[Outcome], answers: Sequence[str], metric: Metric) -> list[float]:
    """Each item's score: 0 or 100, or CIDEr-D x 100. An item that could not be answered has 0."""
    said = [outcome.answer or "" for outcome in outcomes]
    if metric == "CIDEr-D":
        return [100.0 * score for score in cider_d(said, [[answer] for answer in answers])]
    same = folded if metric == "exact match" else str.strip
    return [100.0 * (same(one) == same(right)) for one, right in zip(said, answers, strict=True)]
