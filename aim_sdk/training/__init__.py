"""Training: corpora become episodes, and a projector learns from them while the backbone stays as it is."""

from typing import TYPE_CHECKING

from aim_sdk.support.dependencies import imported

if TYPE_CHECKING:
    from aim_sdk.training.config import TrainingConfig
    from aim_sdk.training.objectives import OBJECTIVES
    from aim_sdk.training.teachers import TEACHERS
    from aim_sdk.training.trainer import Result, train

__all__ = ["OBJECTIVES", "TEACHERS", "Result", "TrainingConfig", "train"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name == "TrainingConfig":
            from aim_sdk.training.config import TrainingConfig

            return TrainingConfig
        if name in ("OBJECTIVES", "TEACHERS"):
            from aim_sdk.training import objectives, teachers

            return objectives.OBJECTIVES if name == "OBJECTIVES" else teachers.TEACHERS
        if name in ("Result", "train"):  # they import torch
            imported("accelerate")
            imported("tensorboard")
            from aim_sdk.training import trainer

            return getattr(trainer, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
