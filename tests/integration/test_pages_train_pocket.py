"""On the real embedded model: pages alone bring a projector nearer to its teacher, or its start is kept."""

from pathlib import Path
from typing import Any

import pytest

from aim_sdk.training import TrainingConfig, train
from aim_sdk.training.journal import read_log
from tests.pages import DRAWINGS, drawn_pages

pytestmark = pytest.mark.slow


def trained(folder: Path, **settings: Any) -> tuple[str, dict[str, float]]:
    """The verdict, and the last evaluation's paired difference in divergence between ``aim`` and ``start``."""
    corpus = drawn_pages(folder / "pages.jsonl", 200)
    config = TrainingConfig.model_validate(
        {
            "output": str(folder / "run"),
            "backend": "pocket",
            "device": "cpu",
            "corpus": {"path": str(corpus), "images": str(DRAWINGS), "min_image_bytes": 0},
            "evaluation": {"every": 100, "episodes": 48, "held_out": 0.25},
            "steps": 20,
            "batch_size": 4,
            "seed": 5,
            "workers": 0,
            "checkpoint_every": 100,
            **settings,
        }
    )
    result = train(config, show=True)
    last = [line for line in read_log(config.output) if "evaluation" in line][-1]
    return result.verdict, last["aim_minus"]["kl"]["start"]


def test_distilled_from_pages_it_is_better_than_its_start(tmp_path: Path) -> None:
    verdict, change = trained(
        tmp_path,
        episodes={"shots": [2, 2], "text": "What is this?"},
        projector={"kind": "linear-norm"},
        optimizer={"learning_rate": 1e-3, "average": 0.8},
    )
    assert verdict.startswith("better than its start by +"), verdict
    assert change["mean"] < -3 * change["error"], change


def test_the_lm_loss_at_its_old_rate_is_not_better(tmp_path: Path) -> None:
    """The training-free carrier is nearer to its teacher than what the texts' style makes of it."""
    verdict, change = trained(
        tmp_path,
        objective="lm",
        episodes={"shots": [2, 2], "text": "What is this?", "labels": 0.0, "styles": 0.0},
        optimizer={"learning_rate": 1.5e-4, "average": 0.0, "weight_decay": 0.0},
    )
    assert verdict.startswith("not better: the start was kept"), verdict
    assert change["mean"] > 0, change
