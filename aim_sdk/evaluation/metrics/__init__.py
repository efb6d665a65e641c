"""Metrics by name; what one needs is imported when it is asked for."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any, Final, cast

from aim_sdk.errors import InputError, did_you_mean
from aim_sdk.evaluation.metrics.metric import Metric

__all__ = ["METRICS", "Metric", "get_metric"]

METRICS: Final = {
    "cider": "cider:CiderD",
    "exact_match": "exact:ExactMatch",
    "roc_auc": "roc_auc:RocAuc",
    "vqa_accuracy": "vqa:VQAAccuracy",
}
"""Where each metric is: a module of this package, and a class of it."""


def get_metric(name: str, **options: Any) -> Metric:
    """Return a metric; ``options`` are the keywords of its class.

    Raises:
        InputError: no metric of that name, it has no such option, or the option cannot have that value.
    """
    if name not in METRICS:
        raise InputError(
            f"no metric named {name!r}.{did_you_mean(name, METRICS)} Expected one of: {', '.join(METRICS)}."
        )
    module, _, kind = METRICS[name].partition(":")
    metric = cast(type[Metric], getattr(import_module(f"{__package__}.{module}"), kind))
    known = list(inspect.signature(metric).parameters)
    for option in options:
        if option not in known:
            expected = f"Expected: {', '.join(known)}." if known else "It has none."
            raise InputError(f"metric {name!r} has no option {option!r}.{did_you_mean(option, known)} {expected}")
    return metric(**options)
