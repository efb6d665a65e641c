"""The demo's tasks and arithmetic, and the quick demo as a user runs it."""

import json
import math
from pathlib import Path

import pytest

from aim_backends.pocket.demo import SHOTS, demo_tasks
from aim_sdk.demo.run import Outcome, clustered_error
from tests.conftest import run_cli


def outcome(correct: bool, group: str) -> Outcome:
    return Outcome("task", "aim", 1, 0, group, "", correct, 1)


def test_clusters_of_one_give_the_binomial_error() -> None:
    outcomes = [outcome(i < 3, str(i)) for i in range(10)]
    assert clustered_error(outcomes) == pytest.approx(math.sqrt(0.3 * 0.7 / 9))


def test_repeating_every_outcome_in_its_cluster_adds_no_certainty() -> None:
    once = [outcome(i < 3, str(i)) for i in range(10)]
    assert clustered_error(once * 4) == pytest.approx(clustered_error(once))
    assert math.isnan(clustered_error([outcome(True, "a")]))


@pytest.mark.parametrize("n", [14, 70])
def test_tasks_show_both_sides_and_ask_what_was_not_shown(n: int) -> None:
    tasks = demo_tasks(n, seed=3)
    assert [task.name for task in tasks] == ["easy-VQA", "name binding", "category label"]
    for task in tasks:
        assert len(task.episodes) == n
        for episode in task.episodes:
            assert len(episode.demonstrations) == SHOTS
            assert episode.query.image not in [item.image for item in episode.demonstrations]
            assert Path(str(episode.query.image)).is_file()
            if task.name != "easy-VQA":
                assert len({item.answer for item in episode.demonstrations[:2]}) == 2
                assert episode.answer in {item.answer for item in episode.demonstrations}
    assert demo_tasks(n, seed=3) == tasks
    assert demo_tasks(n, seed=4) != tasks


@pytest.mark.slow
def test_the_quick_demo_measures_and_writes(tmp_path: Path) -> None:
    shown = run_cli("demo", "--quick", "--out", str(tmp_path / "a folder"))
    assert shown.returncode == 0, shown.stderr
    result = json.loads((tmp_path / "a folder" / "result.json").read_text())
    assert (tmp_path / "a folder" / "plot.png").stat().st_size > 10_000
    cells = {(cell["task"], cell["mode"], cell["shots"]): cell for cell in result["cells"]}
    assert len(cells) == 4 * (1 + 5 * 2)
    assert all(cell["n"] == (42 if task == "all tasks" else 14) for (task, *_), cell in cells.items())
    answers = [answer for answer in result["answers"] if (answer["mode"], answer["shots"]) == ("aim", 2)]
    assert sum(answer["correct"] for answer in answers) / 42 == pytest.approx(cells["all tasks", "aim", 2]["accuracy"])
    for label in ("zero-shot", "text-only", "interleaved", "nearest neighbours", "AIM without images"):
        assert label in shown.stdout
