"""Whose folder it is: a run that took no step owns nothing."""

import json
from pathlib import Path
from typing import Any

import pytest

from aim_sdk.errors import TrainingError
from aim_sdk.training.config import TrainingConfig
from aim_sdk.training.failures import claim


def config(folder: Path, **corpus: Any) -> TrainingConfig:
    return TrainingConfig.model_validate(
        {"backend": "pocket", "output": folder, "corpus": {"path": folder / "corpus", **corpus}}
    )


def test_a_run_of_no_steps_does_not_own_its_folder(tmp_path: Path) -> None:
    """Its own advice (corpus.min_image_bytes=0, say) can be followed in the same folder."""
    claim(config(tmp_path))
    (tmp_path / "log.jsonl").write_text('{"step": 0, "evaluation": {}, "aim_minus": {}}\n')
    claim(config(tmp_path))
    assert (tmp_path / "log.jsonl").exists(), "the same run's own"
    claim(config(tmp_path, min_image_bytes=0))
    assert not (tmp_path / "log.jsonl").exists(), "the losses before the first step were another run's"
    assert json.loads((tmp_path / "config.json").read_text())["corpus"]["min_image_bytes"] == 0


@pytest.mark.parametrize("left", ["checkpoints/step-00000005", "projector"])
def test_a_run_that_has_something_owns_its_folder(tmp_path: Path, left: str) -> None:
    claim(config(tmp_path))
    (tmp_path / left).mkdir(parents=True)
    with pytest.raises(TrainingError, match=r"other settings:\n  corpus.min_image_bytes"):
        claim(config(tmp_path, min_image_bytes=0))
