"""The benchmark suite: tasks, protocols, metrics, and a runner whose results hold everything that a score depends
on."""

from typing import TYPE_CHECKING

from aim_sdk.support.dependencies import imported

if TYPE_CHECKING:
    from aim_sdk.evaluation.results import Run
    from aim_sdk.evaluation.runner import evaluate
    from aim_sdk.evaluation.settings import EvalSettings

__all__ = ["EvalSettings", "Run", "evaluate"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name == "EvalSettings":
            from aim_sdk.evaluation.settings import EvalSettings

            return EvalSettings
        if name == "Run":
            from aim_sdk.evaluation.results import Run

            return Run
        if name == "evaluate":  # it imports torch
            imported("accelerate", extra="eval")
            from aim_sdk.evaluation.runner import evaluate

            return evaluate
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
