"""Paired comparisons: hand-computed, symmetric, honest about what is not there."""

import io
import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from aim_sdk.errors import InputError
from aim_sdk.evaluation.compare import compare, markdown, table
from aim_sdk.evaluation.paired import permutation_p, unchecked
from aim_sdk.evaluation.results import Question, Run
from tests.evaluation_runs import cells, run

FIRST = run(cells("aim", 2, {0: [0, 0, 100, 0], 1: [0, 100, 100, 0]}))
SECOND = run(cells("aim", 2, {0: [100, 0, 100, 100], 1: [100, 0, 100, 100]}))


def test_a_difference_is_paired_by_query_and_seed() -> None:
    (found,) = compare(FIRST, SECOND)
    assert (found.first, found.second, found.difference) == (37.5, 75, 37.5)
    assert (found.pairs, found.better, found.worse) == (8, 4, 1)
    assert found.same_demonstrations
    # Queries differ by +200, -100, 0 and +200 over their seeds: of the eight signs, two reach +-300, two more +-500.
    assert found.p == pytest.approx(permutation_p([200, -100, 200])) == pytest.approx(4 / 8)
    assert found.standard_error == pytest.approx(math.sqrt(4 / 3 * (125**2 + 175**2 + 75**2 + 125**2)) / 8)
    assert found.interval == pytest.approx((37.5 - 1.96 * found.standard_error, 37.5 + 1.96 * found.standard_error))


def test_a_run_does_not_differ_from_itself_and_order_turns_the_sign() -> None:
    (same,) = compare(FIRST, FIRST)
    assert (same.difference, same.p, same.better, same.worse) == (0, 1, 0, 0)
    assert math.isnan(same.standard_error)
    (one,), (other,) = compare(FIRST, SECOND), compare(SECOND, FIRST)
    assert (one.difference, one.p, one.better, one.worse) == (-other.difference, other.p, other.worse, other.better)


@given(st.integers(1, 12), st.integers(0, 12))
def test_of_equal_differences_the_test_is_the_sign_test(plus: int, minus: int) -> None:
    count = plus + minus
    if count > 12:
        return
    tail = sum(math.comb(count, k) for k in range(count + 1) if abs(2 * k - count) >= abs(plus - minus))
    assert permutation_p([1.0] * plus + [-1.0] * minus) == pytest.approx(tail / 2**count)


def test_many_queries_are_flipped_at_random() -> None:
    assert permutation_p([1.0] * 40 + [-1.0] * 40) == pytest.approx(1.0)
    assert permutation_p([1.0] * 50_000 + [-1.0] * 50_632) == pytest.approx(0.0466, abs=1e-3)  # z = 1.99
    uneven = [1.0] * 30 + [-1.0] * 18
    assert permutation_p(uneven) == pytest.approx(0.1114, abs=1e-4)  # all of one size: the exact sign test
    assert permutation_p([value * (1 + 1e-6 * n) for n, value in enumerate(uneven)]) == pytest.approx(0.09, abs=0.04)
    assert permutation_p([1.0 + n for n in range(40)]) == pytest.approx(1 / 10_001)  # never 0


@given(st.lists(st.integers(-3, 3), max_size=6))
def test_few_queries_are_flipped_in_all_ways(differences: list[int]) -> None:
    flips = itertools.product(*([value, -value] for value in differences))
    reached = [abs(sum(signed)) >= abs(sum(differences)) for signed in flips]
    assert permutation_p(differences) == pytest.approx(sum(reached) / len(reached))


def test_p_values_are_corrected_for_their_number() -> None:
    first = [*FIRST.answers, *cells("aim", 4, {0: [0] * 8}), *cells("text-only", 4, {0: [0, 100] * 4})]
    second = [*SECOND.answers, *cells("aim", 4, {0: [100] * 8}), *cells("text-only", 4, {0: [100, 0] * 4})]
    found = compare(run(first), run(second))
    assert [d.p for d in found] == pytest.approx([0.5, 2 / 256, 1.0])
    assert [d.p_holm for d in found] == pytest.approx([1.0, 6 / 256, 1.0])


def test_modes_are_compared_and_zero_shot_goes_with_every_seed() -> None:
    whole = run(
        cells("zero-shot", 0, {0: [0, 0]})
        + cells("aim", 2, {0: [100, 0], 1: [100, 100]})
        + cells("aim", 4, {0: [0, 0]})
    )
    two, four = compare(whole, whole, modes=("zero-shot", "aim"))
    assert (two.shots, two.difference, two.pairs) == ((0, 2), 75, 4)
    assert (four.shots, four.difference, four.pairs) == ((0, 4), 0, 2)
    assert not two.same_demonstrations


def test_without_scores_of_their_own_the_errors_are_combined() -> None:
    one, other = (run(cells("aim", 2, {0: [None, None]}), value=value) for value in (50.0, 58.0))
    (found,) = compare(one, other)
    assert (found.difference, found.p, found.p_holm) == (8, None, None)
    assert found.standard_error == pytest.approx(math.sqrt(18))
    assert "treated as independent" in markdown([found])


def test_a_score_that_is_not_there_is_shown_as_such() -> None:
    most = cells("aim", 2, {0: [0, 100]})
    long = run(cells("aim", 4, {0: [None, 100]}), value=math.nan, standard_error=math.nan, too_long=1)
    first = run([*most, *long.answers])
    second = run([*most]).model_copy(update={"answers": first.answers, "scores": (first.scores[0], *long.scores)})
    _, missing = compare(first, second)
    assert math.isnan(missing.difference)
    assert (missing.p, missing.p_holm) == (None, None)
    assert "no score" in markdown([missing])
    assert "nan" not in markdown([missing])


def test_differences_are_shown_on_the_console_and_in_markdown() -> None:
    found = compare(FIRST, SECOND)
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(table(found))
    text = markdown(found)
    for shown in (console.export_text(), text):
        assert "37.5" in shown
        assert "0.5000" in shown
        assert "4/1 of 8" in shown
    assert len({line.count("|") for line in text.splitlines()[2:]}) == 1


def test_what_cannot_be_paired_is_refused() -> None:
    with pytest.raises(InputError, match="different protocols"):
        compare(FIRST, run(list(FIRST.answers), protocol="qwen-vl"))
    with pytest.raises(InputError, match="nothing to compare"):
        compare(FIRST, run(cells("aim", 3, {0: [0]})))
    with pytest.raises(InputError, match="nothing to compare"):
        compare(FIRST, run(list(SECOND.answers), too_long=1, value=math.nan))
    with pytest.raises(InputError, match="different queries or seeds"):
        compare(FIRST, run(cells("aim", 2, {0: [0], 1: [0]})))
    with pytest.raises(InputError, match=r"seeds \[0, 1\] and \[0\]"):
        compare(FIRST, run(cells("aim", 2, {0: [0, 0, 0, 0]})))
    with pytest.raises(InputError, match="different options"):
        compare(FIRST, run(list(SECOND.answers), options={"case": True}))


def test_what_no_seed_changes_counts_once_a_query() -> None:
    """Nearest neighbours are the same under every seed: two seeds of them are not twice the evidence."""
    near = cells("nearest", 2, {0: [100, 0, 100, 100], 1: [100, 0, 100, 100]})
    other = cells("nearest", 2, {0: [0, 0, 100, 0], 1: [0, 0, 100, 0]})
    (found,) = compare(run(other), run(near))
    assert (found.pairs, found.queries, found.better, found.worse) == (4, 4, 2, 0)
    once = cells("nearest", 2, {0: [100, 0, 100, 100]})
    (mixed,) = compare(run([*once, *FIRST.answers]), run([*once, *FIRST.answers]), modes=("nearest", "aim"))
    assert (mixed.pairs, mixed.queries) == (8, 4)
    assert "of 8 answers to 4 queries" in markdown([mixed])


def test_the_runs_are_called_by_their_names() -> None:
    both = run([*FIRST.answers, *cells("text-only", 2, {0: [0, 0, 100, 0], 1: [0, 100, 100, 0]})])
    assert "| a | b |" in markdown(compare(FIRST, SECOND), ("a", "b"))
    assert "b − a ±" in markdown(compare(FIRST, SECOND), ("a", "b"))
    assert "| text-only | aim |" in markdown(compare(both, both, modes=("text-only", "aim")), ("a", "a"))
    assert "| a, text-only | b, aim |" in markdown(compare(both, both, modes=("text-only", "aim")), ("a", "b"))


def test_tasks_and_shots_are_chosen_and_holm_is_over_them() -> None:
    answers = [cells("aim", k, {0: [0] * 8}, task) for k in (2, 4) for task in ("colours", "shapes")]
    other = [cells("aim", k, {0: [100] * 8}, task) for k in (2, 4) for task in ("colours", "shapes")]
    first, second = (run([cell for group in groups for cell in group]) for groups in (answers, other))
    assert len(compare(first, second)) == 4
    (one,) = compare(first, second, tasks=["shapes"], shots=[4])
    assert (one.task, one.shots, one.p) == ("shapes", (4, 4), one.p_holm)
    with pytest.raises(InputError, match="Did you mean 'shapes'"):
        compare(first, second, tasks=["shape"])
    with pytest.raises(InputError, match="nothing to compare"):
        compare(first, second, shots=[3])


def test_other_data_under_the_same_ids_is_refused() -> None:
    def asked(**changes: Any) -> Run:
        plain = {"text": "What?", "image": "a.png", "image_sha256": "0", "references": ("red",)}
        return FIRST.model_copy(update={"queries": {"colours": {"q1": Question(**{**plain, **changes})}}})

    assert compare(asked(), asked(image="b.png"))
    assert compare(asked(), asked(image_sha256=None))
    assert compare(asked(), FIRST)
    assert (unchecked(asked(), asked()), unchecked(asked(), FIRST)) == ([], ["colours"])
    for name, value in {"text": "Which?", "references": ("blue",), "choices": ("a",), "image_sha256": "1"}.items():
        with pytest.raises(InputError, match=r"use different data: query 'q1' has a different"):
            compare(asked(), asked(**{name: value}))
