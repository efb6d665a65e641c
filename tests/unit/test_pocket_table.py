"""The statistics of pocket's table, on answers whose sums can be done by hand."""

import math

import pytest

from aim_sdk.evaluation.results import Prediction, Question
from benchmarks.pocket.table import goals
from benchmarks.pocket.table_rows import right
from benchmarks.pocket.table_scores import Answers, row_of

TASKS = ("names-of-2", "names-of-4", "categories", "answer-format")


def scores(**rows: list[float]) -> Answers:
    made = {}
    for row, values in rows.items():
        trials = {(task, str(n)): value for task in TASKS for n, value in enumerate(values)}
        made[row.replace("_", "-")] = {4: trials}
    return Answers(made)


def test_gains_are_paired_by_trial() -> None:
    answers = scores(one=[1, 1, 0, 0], other=[0, 1, 0])
    gain = answers.gain("one", "other", 4, "categories")
    assert gain is not None
    assert (gain.n, gain.value) == (3, pytest.approx(1 / 3)), "the fourth trial was answered by one of them alone"
    assert gain.error == pytest.approx(1 / 3), "sd of 1, 0, 0 over the root of 3"
    assert answers.gain("one", "nobody", 4) is None


def test_trainings_of_a_recipe_are_one_row_of_their_means() -> None:
    answers = scores(distilled_1=[1, 1, 0], distilled_2=[1, 0, 0], distilled_3=[1, 0])
    assert answers.trainings == {"distilled": ["distilled-1", "distilled-2", "distilled-3"]}
    found = answers.mean("distilled", 4, "categories")
    assert found is not None
    assert found.n == 2, "a trial counts once, where all of them answered"
    assert found.value == pytest.approx((1 + 1 / 3) / 2)


def test_the_share_of_a_gap_is_the_ratio_of_the_means() -> None:
    start, teacher = [0, 0, 0, 0, 1] * 20, [1, 1, 1, 0, 1] * 20
    answers = scores(start=start, teacher=teacher, aim=[1, 0, 1, 0, 1] * 20)
    closed = answers.closed("aim", "start", "teacher", 4, "categories")
    assert closed is not None
    assert closed.value == pytest.approx(2 / 3)
    for same, share in (("start", 0.0), ("teacher", 1.0)):
        end = answers.closed(same, "start", "teacher", 4)
        assert end is not None
        assert end.value == share
        assert math.isnan(end.error), "it is the end of the gap itself, whatever the trials"
    assert answers.closed("aim", "teacher", "start", 4) is None, "there is no gap"


def test_goals_are_not_measured_before_they_are() -> None:
    assert set(goals(scores(training_free=[0, 1]), TASKS).values()) == {None}
    better = scores(training_free=[0, 0, 0, 1] * 20, interleaved=[1, 1, 0, 1] * 20, distilled_1=[1, 1, 0, 1] * 20)
    assert set(goals(better, TASKS).values()) == {True}
    worse = scores(training_free=[0, 0, 0, 1] * 20, interleaved=[1, 1, 0, 1] * 20, distilled_1=[0, 0, 0, 0] * 20)
    assert set(goals(worse, TASKS).values()) == {False}


def test_rows_have_their_own_names() -> None:
    assert row_of("backbone", "interleaved") == "interleaved"
    assert row_of("shipped", "aim") == "shipped"
    assert row_of("shipped", "no-image") == "shipped without images"


def test_a_choice_that_differs_in_its_case_is_another_one() -> None:
    question = Question(
        text="What color is the shape?", image="a.png", references=("Red\n",), choices=("Red\n", "red\n")
    )
    for answer, score in (("Red\n", 1.0), ("red\n", 0.0)):
        made = {"item": "1-0", "demonstrations": (), "answer": answer, "raw": None, "prompt_tokens": 1, "seconds": 0.1}
        assert right(Prediction(**made, score=100.0), question) == score
