"""ROC-AUC of a two-way choice."""

from __future__ import annotations

import math
from collections.abc import Sequence

from aim_sdk.errors import InputError, did_you_mean
from aim_sdk.evaluation.items import Answered, Item
from aim_sdk.evaluation.metrics.metric import Metric
from aim_sdk.support.dependencies import imported


class RocAuc(Metric):
    """Area under the ROC curve, times 100: how often a positive query's probability is above a negative's.

    A query's probability is the softmax of its choices' log-probabilities at the positive choice; its label is the
    first of its answers.
    """

    name = "roc_auc"
    label = "ROC-AUC, %"
    closed = True

    def __init__(self, positive: str | None = None) -> None:
        """``positive`` is the positive choice; None: the first of an item's choices."""
        self.positive = positive

    def check(self, items: Sequence[Item]) -> None:
        imported("sklearn.metrics", extra="eval")
        for item in items:
            self._place(item)
            if item.answers[0] not in item.choices:
                raise InputError(
                    f"roc_auc: the answer {item.answers[0]!r} of item {item.id!r} is not one of its choices."
                    f"{did_you_mean(item.answers[0], item.choices)} Expected one of: {', '.join(item.choices)}."
                )

    def per_item(self, answered: Sequence[Answered]) -> None:
        """None: a curve needs several answers."""

    def score(self, answered: Sequence[Answered]) -> float:
        """Return 0 to 100; NaN if all queries have the same label.

        Raises:
            InputError: answers were generated, not scored, or the positive choice is none of a query's choices.
            MissingDependencyError: scikit-learn is not installed.
        """
        metrics = imported("sklearn.metrics", extra="eval")
        places = [self._place(a.item, len(a.log_probs or ())) for a in answered]
        labels = [a.item.answers[0] == a.item.choices[place] for a, place in zip(answered, places, strict=True)]
        if len(set(labels)) < 2:
            return math.nan
        probabilities = [_probability(a, place) for a, place in zip(answered, places, strict=True)]
        return 100.0 * float(metrics.roc_auc_score(labels, probabilities))

    def _place(self, item: Item, scored: int | None = None) -> int:
        """The index of the positive choice; ``scored`` is how many log-probabilities there are, once there are some."""
        choices = item.choices
        if len(choices) < 2 or scored not in (None, len(choices)):
            made = "" if scored is None else f" and {scored} log-probabilities"
            raise InputError(
                f"roc_auc needs the log-probability of each of an item's choices; item {item.id!r} has "
                f"{len(choices)} choices{made}. "
                "Generated answers can be scored with: exact_match."
            )
        if self.positive is None:
            return 0
        if self.positive not in choices:
            raise InputError(
                f"roc_auc: {self.positive!r} is not one of the choices of item {item.id!r}."
                f"{did_you_mean(self.positive, choices)} Expected one of: {', '.join(choices)}."
            )
        return choices.index(self.positive)


def _probability(answered: Answered, place: int) -> float:
    assert answered.log_probs is not None
    top = max(answered.log_probs)
    weights = [math.exp(value - top) for value in answered.log_probs]
    return weights[place] / sum(weights)
