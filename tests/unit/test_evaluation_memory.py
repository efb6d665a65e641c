"""Memory is what a block itself took on the GPU, or nothing is said."""

import pytest
import torch

from aim_sdk.evaluation import report
from aim_sdk.support.memory import peak
from tests.evaluation_runs import cells, run


def test_on_a_cpu_nothing_is_said() -> None:
    with peak(torch.device("cpu")) as found:
        torch.zeros(10_000_000)
    assert found.bytes is None


def test_a_block_on_gpus_is_measured_from_what_was_held_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """A larger block before it, the model and other GPUs' past do not count."""
    held, most = [1000, 500], [9000, 700]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "memory_allocated", held.__getitem__)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", most.__getitem__)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda number: most.__setitem__(number, held[number]))
    with peak(torch.device("cuda", 1)) as found:
        most[1] += 40
    assert found.bytes == 40


def test_a_number_that_is_the_processs_is_not_shown() -> None:
    old = run(cells("aim", 2, {0: [0, 100]}))
    assert old.answers[0].peak_bytes == 2**20
    assert "MiB" not in report.markdown({"old": old})
    assert "memory" not in report.markdown({"old": old})
    scores = tuple(score.model_copy(update={"memory_bytes": 3 << 20}) for score in old.scores)
    assert "3 MiB" in report.markdown({"new": old.model_copy(update={"scores": scores})})
    assert "GPU memory beyond the model" in report.markdown({"new": old.model_copy(update={"scores": scores})})
