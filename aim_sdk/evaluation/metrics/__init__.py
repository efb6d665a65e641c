"""Metrics by name; what one needs is imported when it is asked for."""

from __future__ import annotations

import inspect
from typing import Any, Final

from aim_sdk.errors import InputError, unknown
from aim_sdk.evaluation.metrics.metric import Metric
from aim_sdk.support.plugins import Registry

__all__ = ["METRICS", "Metric", "get_metric"]

METRICS: Final = Registry[type[Metric]](
    "metric",
    "aim_sdk.metrics",
    {
        "box_iou": "aim_sdk.evaluation.metrics.box_iou:BoxIou",
        "cider": "aim_sdk.evaluation.metrics.cider:CiderD",
        "exact_match": "aim_sdk.evaluation.metrics.exact:ExactMatch",
        "json_fields": "aim_sdk.evaluation.metrics.json_fields:JsonFields",
        "roc_auc": "aim_sdk.evaluation.metrics.roc_auc:RocAuc",
        "vqa_accuracy": "aim_sdk.evaluation.metrics.vqa:VQAAccuracy",
    },
)
"""Every metric by name."""


def get_metric(name: str, **options: Any) -> Metric:
    """Return a metric; ``options`` are the keywords of its class.

    Raises:
        InputError: no metric of that name, it has no such option, or the option cannot have that value.
    """
    metric = METRICS[name]
    known = list(inspect.signature(metric).parameters)
    for option in options:
        if option not in known:
            raise InputError(f"metric {name!r}: {unknown('option', option, known)}")
    return metric(**options)
