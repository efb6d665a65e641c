"""CIDEr-D as a metric; `aim_sdk.support.cider` computes it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from aim_sdk.evaluation.items import Answered, Item
from aim_sdk.evaluation.metrics.metric import Metric, MetricWarning
from aim_sdk.support.cider import cider_d


class CiderD(Metric):
    """CIDEr-D times 100; a caption's own is 0 to 1000.

    The weights of words come from the references of all images that are scored together: scores of different subsets
    of a dataset do not compare, and one image alone scores 0.
    """

    name = "cider"
    label = "CIDEr x 100"

    def check(self, items: Sequence[Item]) -> None:
        """Warn if it measures little: it compares up to four words in a row, and all references are single words."""
        if items and all(len(answer.split()) <= 1 for item in items for answer in item.answers):
            warnings.warn(
                "metric cider: every reference is a single word, so three of its four parts are zero: no answer can "
                "score more than a quarter of the points. Next: score one-word answers with exact_match.",
                MetricWarning,
                stacklevel=2,
            )

    def per_item(self, answered: Sequence[Answered]) -> list[float]:
        """Return each caption's score, given the references of all."""
        scores = cider_d([a.text for a in answered], [a.item.answers for a in answered])
        return [100.0 * score for score in scores]
