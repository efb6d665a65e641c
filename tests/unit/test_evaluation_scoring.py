"""The table's numbers, by hand."""

import math
from typing import Any

import pytest

from aim_sdk.evaluation.items import Item
from aim_sdk.evaluation.metrics import get_metric
from aim_sdk.evaluation.results import Cell, CellAnswers
from aim_sdk.evaluation.scoring import answers_of, mean, table

ITEMS = {f"q{i}": Item(f"q{i}", "x.png", "", ("x" if i % 2 else "y",)) for i in range(40)}
METRIC = get_metric("exact_match")


def prediction(item: str, text: str | None) -> dict[str, Any]:
    return {
        "item": item,
        "demonstrations": ["s"],
        "raw": text,
        "answer": text,
        "score": None,
        "prompt_tokens": 7,
        "seconds": 0.5,
    }


def cell(seed: int, text: str | None = "x", mode: Any = "aim") -> CellAnswers:
    found = [prediction(name, text) for name in ITEMS]
    return answers_of(
        Cell(task="t", mode=mode, shots=1, seed=seed), [{"predictions": found, "memory_bytes": 5}], ITEMS, METRIC
    )


def test_a_share_has_its_binomial_error_however_many_seeds_there_are() -> None:
    (once,) = table([cell(0)], {"t": ITEMS}, {"t": METRIC})
    assert once.value == 50
    assert once.standard_error == pytest.approx(100 * math.sqrt(0.25 / 40), rel=0.02)
    assert math.isnan(once.seeds_error)
    (thrice,) = table([cell(0), cell(1), cell(2)], {"t": ITEMS}, {"t": METRIC})
    assert thrice.standard_error == pytest.approx(once.standard_error)
    assert (thrice.seeds_error, thrice.by_seed, thrice.queries) == (0, {0: 50, 1: 50, 2: 50}, 40)
    assert (thrice.prompt_tokens, thrice.seconds, thrice.memory_bytes) == (7, 0.5, 5)


def test_seeds_that_differ_are_averaged() -> None:
    (found,) = table([cell(0, "x"), cell(1, "neither")], {"t": ITEMS}, {"t": METRIC})
    assert found.value == 25
    assert found.seeds_error == pytest.approx(25)


def test_each_answer_has_its_own_score() -> None:
    assert [p.score for p in cell(0).predictions] == [100.0 * (i % 2) for i in range(40)]


def test_where_a_prompt_does_not_fit_there_is_no_number() -> None:
    found = [prediction(name, None if name == "q3" else "x") for name in ITEMS]
    kept = answers_of(Cell(task="t", mode="aim", shots=1, seed=0), [{"predictions": found}], ITEMS, METRIC)
    (score,) = table([kept], {"t": ITEMS}, {"t": METRIC})
    assert score.too_long == 1
    assert math.isnan(score.value)
    assert math.isnan(score.standard_error)
    assert [p.item for p in kept.predictions if not p.fits] == ["q3"]


def test_modes_are_numbers_of_their_own() -> None:
    found = table([cell(0), cell(0, mode="text-only")], {"t": ITEMS}, {"t": METRIC})
    assert [score.mode for score in found] == ["aim", "text-only"]


def test_a_metric_of_whole_sets_scores_the_set() -> None:
    items = {f"q{i}": Item(f"q{i}", "x.png", "", ("yes" if i < 2 else "no",), ("yes", "no")) for i in range(4)}
    metric = get_metric("roc_auc")
    found = [
        prediction(name, "yes") | {"raw": None, "log_probs": [value, 0.0]}
        for name, value in zip(items, (2, 0, 1, -1), strict=True)
    ]
    kept = answers_of(Cell(task="t", mode="aim", shots=1, seed=0), [{"predictions": found}], items, metric)
    assert all(p.score is None for p in kept.predictions)
    (score,) = table([kept], {"t": items}, {"t": metric})
    assert score.value == pytest.approx(75)
    assert score.standard_error > 0


def test_the_mean_over_tasks_has_the_error_of_independent_ones() -> None:
    (one,) = table([cell(0)], {"t": ITEMS}, {"t": METRIC})
    other = one.model_copy(update={"task": "u", "value": 100.0, "standard_error": 3.0, "queries": 10})
    (found,) = mean([one, other])
    assert (found.value, found.queries, found.shots, found.by_seed) == (75, 50, 1, {0: 50})
    assert found.standard_error == pytest.approx(math.hypot(one.standard_error, 3) / 2)
    assert mean([one]) == []
    assert mean([one, other.model_copy(update={"metric": "cider"})]) == []
    assert mean([one, other.model_copy(update={"shots": 2})]) == [], "only what all tasks have"
