"""A model for lmms-eval whose prompts have demonstrations in them: its zero-shot tasks become few-shot.

The entry point ``lmms_eval.models`` leads to `manifest`; the model itself is imported when it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmms_eval.models.registry_v2 import ModelManifest

MODEL = "aim"
"""What ``lmms-eval --model`` calls it."""


def manifest() -> ModelManifest:
    """What lmms-eval's registry wants to know of the model."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id=MODEL, simple_class_path="aim_sdk.evaluation.lmms_eval.model.AimModel")
