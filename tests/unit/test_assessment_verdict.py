"""The verdict of an assessment, on scores whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aim_sdk.assessment.candidates import BLIND, Candidate, candidates
from aim_sdk.assessment.choice import best, compared, cross_fitted, folds_of, of_chosen
from aim_sdk.assessment.verdict import Verdict, verdict_of
from aim_sdk.types import Mode

SETTINGS = candidates(["aim", "text-only", "interleaved", "nearest"], [1, 2, 4, 8], ["reading"], most_shots=40)


def drawn(seed: int, shares: dict[Mode, float], n: int = 100) -> Verdict:
    """The verdict on right and wrong answers; an item that is easy in one setting is easier in all."""
    generator = np.random.default_rng(seed)
    easy = generator.random(n)
    scores = []
    for setting in SETTINGS:
        own = generator.random(n)
        difficulty = np.where(generator.random(n) < 0.5, easy, own)  # each is uniform, and they are correlated
        scores.append(100.0 * (difficulty < shares.get(setting.mode, 0.5)))
    return verdict_of(SETTINGS, np.array(scores), folds_of([str(i % 2) for i in range(n)]), " %")


@pytest.mark.parametrize(
    ("shares", "truth"),
    [
        ({"zero-shot": 0.5, "aim": 0.8, "interleaved": 0.75}, "helps, by its images"),
        ({"zero-shot": 0.5, "aim": 0.8, "interleaved": 0.8, "text-only": 0.8}, "helps, by its texts"),
        ({"zero-shot": 0.8}, "harms"),
    ],
)
def test_the_truth_is_found_in_at_least_95_of_100(shares: dict[Mode, float], truth: str) -> None:
    right = 0
    for seed in range(100):
        found = drawn(seed, shares)
        if truth == "helps, by its images":
            right += found.helps and found.images_matter and found.run.mode in ("aim", "interleaved")
            assert found.sentence.startswith("Use") == found.helps
        elif truth == "helps, by its texts":
            right += found.helps and not found.images_matter
        else:
            right += found.harms and not found.helps and found.run == SETTINGS[0]
    assert right >= 95


def test_useless_examples_are_called_helpful_in_at_most_one_of_twenty() -> None:
    alarms = sum(drawn(seed, {}).helps for seed in range(400))
    assert alarms <= 20
    best_alone = 0  # without folds, the best of 17 settings looks better than it is
    for seed in range(100):
        generator = np.random.default_rng(seed)
        scores = 100.0 * (generator.random((len(SETTINGS), 100)) < 0.5)
        best_alone += compared(scores[best(scores)], scores[0], "zero-shot").p < 0.05
    assert best_alone > 10


def test_what_is_recommended_runs_and_is_named() -> None:
    helps = drawn(0, {"zero-shot": 0.4, "aim": 0.9})
    assert helps.run.mode == "aim"
    assert helps.sentence.startswith(f"Use AIM, k={helps.run.shots}, selector reading: ")
    assert "the images matter (+" in helps.sentence
    useless = drawn(0, {})
    assert useless.run == Candidate("zero-shot", 0, None)
    assert useless.sentence.startswith("Do not use examples: ")
    few = drawn(0, {"zero-shot": 0.1, "aim": 1.0}, n=12)
    assert few.sentence.endswith("With 12 items only large differences show.")


@given(st.integers(2, 6), st.integers(6, 60), st.integers(0, 1000))
def test_an_item_never_chooses_its_own_setting(settings: int, items: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    scores = generator.random((settings, items))
    folds = folds_of([str(value) for value in generator.integers(0, 3, items)], seed=seed)
    chosen = cross_fitted(scores, folds)
    item = int(generator.integers(items))
    changed = scores.copy()
    changed[:, item] = generator.random(settings) * 100
    assert cross_fitted(changed, folds)[item] == chosen[item]
    assert of_chosen(scores, chosen).shape == (items,)


@given(st.lists(st.sampled_from("abc"), min_size=5, max_size=80), st.integers(0, 100))
def test_folds_hold_every_answer_alike(answers: list[str], seed: int) -> None:
    folds = folds_of(answers, seed=seed)
    sizes = np.bincount(folds, minlength=5)
    assert sizes.max() - sizes.min() <= 1
    for answer in set(answers):
        counts = np.bincount(folds[[one == answer for one in answers]], minlength=5)
        assert counts.max() - counts.min() <= 1


def test_settings_are_the_cheapest_first_and_texts_are_chosen_blindly() -> None:
    found = candidates(["interleaved", "aim", "text-only", "nearest"], [4, 1, 4], ["reading"], most_shots=3)
    assert [str(one) for one in found] == [
        "zero-shot",
        "nearest neighbours, k=1",
        f"texts alone, k=1, selector {BLIND}",
        "AIM, k=1, selector reading",
        "interleaved images, k=1, selector reading",
    ]
