"""The kit catches bugs of declarations, of drawn answers, of stop strings, and of what a call leaves."""

import pytest

from aim_sdk.testing import check_backend, run_checks
from aim_sdk.testing.process import process_state
from tests.conformance.third_party import more_mutations
from tests.conformance.third_party.mutant import Part


@pytest.mark.parametrize(("check", "bug"), more_mutations.CAUGHT, ids=lambda value: getattr(value, "__name__", value))
def test_a_bug_of_a_third_party_backend_is_caught(check: str, bug: Part) -> None:
    (result,) = run_checks(more_mutations.made(bug), checks=[check])
    assert result.status == "failed"
    assert result.message


def test_an_honest_backend_that_draws_passes() -> None:
    check_backend(more_mutations.made(more_mutations.Sampler))


def test_the_process_is_as_before_after_each_check() -> None:
    for bug in (more_mutations.GradientsOffForGood, more_mutations.DoubleForEverybody, more_mutations.SeedsEverybody):
        backend = more_mutations.made(bug)
        before = process_state()
        list(run_checks(backend, checks=["deterministic", "prompt_tokens"]))
        assert process_state() == before
