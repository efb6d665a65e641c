"""What benchmarks/speed/training measures: floors that compute the trainer's loss, and whole runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from aim_backends.llava import LlavaBackend
from aim_backends.pocket.backend import PocketBackend
from benchmarks.speed.training.measure import measure

pytestmark = pytest.mark.filterwarnings("ignore")


def measured(load: Callable[[], Any], folder: Path, **options: Any) -> dict[str, Any]:
    """A run of three steps of one episode; the script itself checks that floor and trainer have the same loss."""
    found = measure(load, folder, batch_size=1, count=3, rounds=2, size=(64, 64), workers=0, **options)
    assert all(pair["of_floor"]["median"] > 0 for kind in found["objectives"].values() for pair in kind.values())
    return found


@pytest.mark.slow
def test_a_transformers_backbone_is_measured_with_both_objectives(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    load = partial(LlavaBackend.from_pretrained, str(tiny("llava-1.5")), device="cpu")
    found = measured(load, tmp_path)
    assert list(found["objectives"]) == ["lm", "distill"]
    assert list(found["objectives"]["distill"]) == ["empty caches", "all cached"]
    assert list(tmp_path.glob("run/*")) == []


@pytest.mark.slow
def test_pocket_is_measured(tmp_path: Path) -> None:
    measured(partial(PocketBackend.from_pretrained, None, device="cpu"), tmp_path, caches=["all cached"])
