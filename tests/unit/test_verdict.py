"""What a run says at its end: never better than it is."""

import pytest

from aim_sdk.training.estimates import Estimate
from aim_sdk.training.verdict import Best, verdict

NAN = float("nan")
NO_NAMES = Estimate(NAN, NAN, 0)


def best(closer: Estimate, names: Estimate = NO_NAMES, step: int = 40) -> Best:
    return Best(step=step, kl=0.1, closer=closer, names=names)


@pytest.mark.parametrize(
    ("closer", "names", "better"),
    [
        (Estimate(0.10, 0.04, 64), Estimate(0.02, 0.03, 32), True),
        (Estimate(0.10, 0.04, 64), NO_NAMES, True),
        (Estimate(0.10, 0.04, 64), Estimate(-0.05, 0.03, 32), True),
        (Estimate(0.10, 0.04, 64), Estimate(-0.07, 0.03, 32), False),
        (Estimate(0.10, 0.04, 64), Estimate(-0.01, 0.00, 32), False),
        (Estimate(0.10, 0.04, 64), Estimate(0.0, 0.0, 32), True),
        (Estimate(0.10, 0.04, 64), Estimate(-1.0, NAN, 1), False),
        (Estimate(0.10, 0.04, 64), Estimate(1.0, NAN, 1), True),
        (Estimate(0.10, 0.05, 64), NO_NAMES, False),
        (Estimate(0.10, 0.01, 7), NO_NAMES, False),
        (Estimate(0.10, NAN, 1), NO_NAMES, False),
        (Estimate(NAN, NAN, 0), NO_NAMES, False),
        (Estimate(-0.10, 0.01, 64), NO_NAMES, False),
    ],
)
def test_better_is_beyond_the_noise_in_both_measures(closer: Estimate, names: Estimate, better: bool) -> None:
    found = best(closer, names)
    assert found.better is better
    assert verdict(found).startswith("better than its start by +" if better else "not better: the start was kept")
    assert f"{closer.n} held-out episodes" in verdict(found)


def test_the_start_itself_is_never_better() -> None:
    found = best(Estimate(0.0, 0.0, 64), step=0)
    assert not found.better
    assert "no evaluation was nearer" in verdict(found)


def test_what_was_fitted_before_the_first_step_may_be_better() -> None:
    found = best(Estimate(0.1, 0.01, 64), step=0)
    assert found.better
    assert "as it was fitted, before the first step" in verdict(found)


def test_what_was_not_measured_is_said() -> None:
    assert "not measured" in verdict(None)
    assert "no new names were measured" in verdict(best(Estimate(0.1, 0.01, 64)))
    assert "(8 are needed to tell)" in verdict(best(Estimate(0.1, 0.01, 2)))
