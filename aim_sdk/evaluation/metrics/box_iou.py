"""How well boxes cover those of the reference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aim_sdk.backend.box import Box
from aim_sdk.errors import InputError
from aim_sdk.evaluation.boxes import boxes_in, check_references
from aim_sdk.evaluation.items import Answered, Item
from aim_sdk.evaluation.metrics.metric import Metric
from aim_sdk.support.dependencies import imported


class BoxIou(Metric):
    """Intersection over union of the answer's boxes and the reference's; of several references the best counts.

    Boxes are paired so that the sum is largest, only boxes of equal labels (case does not matter) with each other; a
    box of the reference without a label goes with any. The sum is divided by the larger number of boxes, so that a box
    too many counts as one that is missed. If the reference is ``[]``, an answer without boxes is right.

    Args:
        threshold: None: the mean IoU. A number: the share of boxes whose IoU is at least that, such as 0.5.

    Raises:
        InputError: the threshold is not above 0 and at most 1.
    """

    name = "box_iou"
    label = "IoU of boxes, %"

    def __init__(self, threshold: float | None = None) -> None:
        if threshold is not None and not (type(threshold) in (int, float) and 0 < threshold <= 1):
            raise InputError(f"box_iou: threshold is {threshold!r}; expected a number above 0 and at most 1, or none.")
        self.threshold = threshold

    def check(self, items: Sequence[Item]) -> None:
        """Refuse references of which any box is bad."""
        check_references(self.name, items)

    def per_item(self, answered: Sequence[Answered]) -> list[float]:
        """Return 0 to 100 for each answer."""
        return [
            100.0 * max(self._score(boxes_in(a.text), boxes_in(answer)) for answer in a.item.answers) for a in answered
        ]

    def _score(self, found: Sequence[Box], expected: Sequence[Box]) -> float:
        if not found or not expected:
            return float(not found and not expected)
        worth = np.array([[self._worth(one, other) for other in expected] for one in found])
        rows, columns = imported("scipy.optimize").linear_sum_assignment(worth, maximize=True)
        return float(worth[rows, columns].sum()) / max(len(found), len(expected))

    def _worth(self, one: Box, other: Box) -> float:
        if other.label and one.label.casefold() != other.label.casefold():
            return 0.0
        iou = one.iou(other)
        return iou if self.threshold is None else float(iou >= self.threshold)
