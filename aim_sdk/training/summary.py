"""How a projector was trained: what its configuration and its model card say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from aim_sdk.support.provenance import machine
from aim_sdk.training.checkpoint import TrainingState
from aim_sdk.training.config import TrainingConfig
from aim_sdk.training.verdict import verdict


def summary(
    config: TrainingConfig, state: TrainingState, lines: Sequence[dict[str, Any]], *, learning_rate: float
) -> dict[str, Any]:
    """Collect it from a run's settings, its state and the lines of its log; no path of this machine is in it."""
    evaluated = {line["step"]: line["evaluation"] for line in lines if "evaluation" in line}
    best = state.best
    return {
        "settings": json.loads(
            config.model_dump_json(exclude={"output": True, "model": True, "corpus": {"path", "images"}})
        ),
        "corpus": config.corpus.path.name,
        "fitted": state.fitted,
        "steps": state.step,
        "episodes": state.episodes,
        "learning_rate": learning_rate,
        "verdict": verdict(best),
        "held_out": evaluated.get(best.step if best is not None and best.better else 0, {}),  # of what is saved
        "held_out_before": evaluated.get(0, {}),
        "machine": machine(),
    }
