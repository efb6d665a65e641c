"""The public kit: every family passes its checks, and every check catches the bug that it is for."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from aim_backends.hf import TransformersBackend
from aim_backends.llava import LlavaBackend
from aim_sdk import Demonstration, FusedTokens, Query
from aim_sdk.errors import FormatError, InputError
from aim_sdk.testing import (
    CHECKS,
    ConformanceError,
    backend_checks,
    check_backend,
    run_checks,
    strategies,
)
from tests.conformance.broken import BROKEN, Broken, name
from tests.conformance.families import EXPECTED_FAILURES, Family


@pytest.mark.parametrize("check", backend_checks())
def test_family(family: Family, check: str) -> None:
    known = EXPECTED_FAILURES.get(family.variant, {})
    expected = {name: reason for name, reason in known.items() if name == check}
    (result,) = check_backend(family.backend, checks=[check], expected_failures=expected)
    if result.status != "passed":
        pytest.skip(result.message)


@pytest.fixture
def good(tiny: Callable[[str], Path]) -> TransformersBackend:
    """A backend of its own for each bug: some of them spoil it."""
    return LlavaBackend.from_pretrained(str(tiny("llava-1.5")), device="cpu")


@pytest.mark.parametrize(("check", "broken"), BROKEN, ids=[f"{check}-{name(broken)}" for check, broken in BROKEN])
def test_catches(good: TransformersBackend, check: str, broken: Broken) -> None:
    (result,) = run_checks(broken(good), checks=[check])
    assert result.status == "failed"
    assert result.message


def test_every_check_is_known_to_catch_something() -> None:
    assert {check for check, _ in BROKEN} == set(CHECKS)
    assert all("Catches" in str(function.__doc__) for function in CHECKS.values())


def test_expected_failures_are_reported_as_such(good: TransformersBackend) -> None:
    bug = dict(BROKEN)["dtype_and_device"](good)
    names = ["dtype_and_device", "zero_demonstrations"]
    (first, second) = check_backend(bug, checks=names, expected_failures={"dtype_and_device": "reads in double"})
    assert (first.status, first.message) == ("expected failure", "reads in double")
    assert second.status == "passed"
    with pytest.raises(ConformanceError, match="unexpected pass") as caught:
        check_backend(bug, checks=names, expected_failures=dict.fromkeys(names, "no reason"))
    assert [result.status for result in caught.value.results] == ["expected failure", "unexpected pass"]
    with pytest.raises(InputError, match="Did you mean 'deterministic'"):
        check_backend(bug, checks=["determinstic"])


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(demonstration=strategies.demonstrations(), query=strategies.queries())
def test_whatever_the_strategies_draw_is_read_and_answered(
    llava: TransformersBackend, demonstration: Demonstration, query: Query
) -> None:
    form = llava.default_format
    try:
        (reading,) = llava.reader.read([demonstration], prompt_format=form)
        (scores,) = llava.injector.score(query, [FusedTokens(reading.embeddings)], ["yes"], prompt_format=form)
    except FormatError:  # a text that holds a token with a meaning of its own
        return
    assert reading.hidden.isfinite().all()
    assert all(score < 0 for score in scores)
