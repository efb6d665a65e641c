"""The demo's tasks as they are drawn, and the quick demo as a user runs it."""

import math
from pathlib import Path

import pytest

from aim_sdk.evaluation.plan import draws
from aim_sdk.evaluation.protocol import get_protocol
from aim_sdk.evaluation.results import Run
from aim_sdk.support.clusters import clustered_error
from aim_sdk.support.modes import LABELS
from tests.conftest import run_cli


def test_clusters_of_one_give_the_binomial_error() -> None:
    assert clustered_error([float(i < 3) for i in range(10)], range(10)) == pytest.approx(math.sqrt(0.3 * 0.7 / 9))


def test_repeating_every_outcome_in_its_cluster_adds_no_certainty() -> None:
    once = [float(i < 3) for i in range(10)]
    assert clustered_error(once * 4, [*range(10)] * 4) == pytest.approx(clustered_error(once, range(10)))
    assert math.isnan(clustered_error([1.0], ["a"]))


@pytest.mark.parametrize("n", [14, 70])
def test_tasks_show_both_sides_and_ask_what_was_not_shown(n: int) -> None:
    demo = get_protocol("demo")
    assert demo.tasks == ("easy-vqa", "emoji-names", "emoji-labels")
    shots = max(demo.shots)
    for task in demo.tasks:
        found = draws(task, demo, shots=shots, limit=n, seed=3)
        assert len(found) == n
        for asked in found:
            shown = asked.demonstrations
            assert len(shown) == shots
            assert asked.query.image not in [item.image for item in shown]
            assert Path(str(asked.query.image)).is_file()
            if task != "easy-vqa":
                assert len({item.answer for item in shown[:2]}) == 2
                assert asked.item.answers[0] in {item.answer for item in shown}
        assert draws(task, demo, shots=shots, limit=n, seed=3) == found
        assert draws(task, demo, shots=shots, limit=n, seed=4) != found


@pytest.mark.slow
def test_the_quick_demo_measures_and_writes(tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    shown = run_cli("demo", "--quick", "--out", str(folder))
    assert shown.returncode == 0, shown.stderr
    run = Run.load(folder)
    assert (folder / "scores.png").stat().st_size > 10_000
    scores = {(score.task, score.mode, score.shots): score for score in run.scores}
    assert len(scores) == 3 * (1 + 5 * 2)
    assert all(score.queries == 8 for score in scores.values())
    for task in run.tasks:
        (answers,) = run.answered(task, "aim", 2)
        right = [prediction.score for prediction in answers.predictions]
        assert sum(filter(None, right)) / 8 == pytest.approx(scores[task, "aim", 2].value)
        timed = {
            mode for mode in LABELS if not math.isnan(scores[task, mode, 2 * (mode != "zero-shot")].first_token_seconds)
        }
        assert timed == {"zero-shot", "text-only", "interleaved", "aim"}
    for label in (
        "zero-shot",
        "text-only",
        "interleaved",
        "nearest neighbours",
        "AIM without images",
        "mean over tasks",
    ):
        assert label in shown.stdout
    assert shown.stdout.count("  query  ") == 3
    again = run_cli("demo", "--quick", "--out", str(folder))
    assert again.stdout == shown.stdout
