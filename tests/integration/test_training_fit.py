"""A run whose projector is fitted before its first step: it is compared with what it was before that."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from aim_backends.hf.reader import TransformersReader
from aim_sdk import Projector
from aim_sdk.training import TrainingConfig, train
from aim_sdk.training.data import training_demonstrations
from aim_sdk.training.held_out import held_out
from tests.conftest import torchrun
from tests.integration.test_training import checkpoint, command, corpus, log, losses, run, settings, weights

__all__ = ["corpus", "settings"]  # fixtures

CARRIER = {"kind": "carrier", "layers": [1, -1]}


def started(folder: Path) -> dict[str, Any]:
    """The evaluation before the first step."""
    return next(line["aim_minus"] for line in log(folder) if line.get("step") == 0 and "evaluation" in line)


@pytest.mark.slow
def test_the_start_is_what_it_was_before_it_was_fitted(settings: dict[str, Any]) -> None:
    folder = run(settings, projector=CARRIER, steps=1)
    assert checkpoint(folder, "start")["others.weight"].count_nonzero() == 0
    assert checkpoint(folder, "projector")["others.weight"].count_nonzero() > 0
    assert started(folder)["kl"]["start"]["mean"] != 0
    made = Projector.from_pretrained(folder / "projector")
    shown = list(training_demonstrations(TrainingConfig.model_validate(settings), 1024))
    assert made.summary["fitted"] == len(shown) - 1, "one image is broken"
    plain = run(settings, projector={**CARRIER, "fit": 0}, steps=1, output=f"{settings['output']}-plain")
    assert started(plain)["kl"]["start"]["mean"] == 0
    last = run(settings, projector={"kind": "carrier"}, steps=1, output=f"{settings['output']}-last")
    assert started(last)["kl"]["start"]["mean"] == 0, "no earlier layer, nothing to fit"


def test_another_seed_fits_to_other_readings(settings: dict[str, Any]) -> None:
    first, other = (
        run(settings, projector={**CARRIER, "fit": 12}, steps=1, seed=seed, output=f"{settings['output']}-{seed}")
        for seed in (1, 2)
    )
    one, two = (checkpoint(folder, "average")["others.weight"] for folder in (first, other))
    assert not torch.allclose(one, two, atol=1e-2)


def test_nothing_that_is_held_out_is_fitted_to(settings: dict[str, Any]) -> None:
    config = TrainingConfig.model_validate(settings)
    shown = list(training_demonstrations(config, 1000))
    documents = {str(item.metadata["id"]).split("#")[0] for item in shown}
    assert len(shown) > 20
    assert documents
    assert not [document for document in documents if held_out(document, config)]
    assert [item.metadata["id"] for item in training_demonstrations(config, 7)] == [i.metadata["id"] for i in shown[:7]]


def test_a_start_from_a_trained_projector_is_not_fitted_again(settings: dict[str, Any]) -> None:
    first = run(settings, projector=CARRIER, steps=1, evaluation={"every": 0})
    second = run(
        settings, projector={"start": str(first / "projector")}, steps=1, output=f"{settings['output']}-second"
    )
    began = weights(first)["others.weight"]
    torch.testing.assert_close(checkpoint(second, "start")["others.weight"], began)


def test_without_steps_a_projector_is_fitted_and_measured(settings: dict[str, Any]) -> None:
    """What it hands out is the fitted one, or its start if that is not nearer to the teacher; no optimizer step."""
    folder = run(settings, projector=CARRIER, steps=0, evaluation={"every": 0})
    assert weights(folder)["others.weight"].count_nonzero() > 0
    measured = run(settings, projector=CARRIER, steps=0, output=f"{settings['output']}-measured")
    (line,) = [line for line in log(measured) if "evaluation" in line]
    gained = line["aim_minus"]["kl"]["start"]
    nearer = gained["n"] >= 8 and gained["mean"] < -2 * gained["error"]
    assert bool(weights(measured)["others.weight"].count_nonzero()) == nearer
    assert not losses(measured)
    again = run(settings, projector=CARRIER, steps=0, output=f"{settings['output']}-measured")
    assert all(torch.equal(value, weights(measured)[name]) for name, value in weights(again).items())


def test_a_backbone_that_does_not_show_what_images_look_like_says_so(
    settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(TransformersReader, "_takes_embeddings", lambda *_: False)
    config = TrainingConfig.model_validate({**settings, "projector": CARRIER, "steps": 0})
    assert train(config, show=True).finished
    assert "the projector is not fitted" in " ".join(capsys.readouterr().err.split())
    assert weights(config.output)["others.weight"].count_nonzero() == 0


@pytest.mark.slow
def test_two_processes_fit_alike(settings: dict[str, Any], tmp_path: Path) -> None:
    settings = {**settings, "projector": CARRIER, "steps": 2}
    alone = run(settings)
    shared = {**settings, "output": f"{settings['output']}-shared"}
    subprocess.run(command(shared, tmp_path, *torchrun(), "-m", "aim_sdk.cli"), check=True)
    for name, value in weights(alone).items():
        torch.testing.assert_close(value, weights(Path(shared["output"]))[name], atol=1e-5, rtol=1e-4)
    assert json.loads((alone / "config.json").read_text())["projector"]["fit"] == 1024
