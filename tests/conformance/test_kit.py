"""The public kit: every family passes its checks, and every check catches the bug that it is for."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from aim_backends.hf import TransformersBackend
from aim_backends.llava import LlavaBackend
from aim_sdk import Demonstration, FusedTokens, Query
from aim_sdk.backend import AnswersPlainly
from aim_sdk.errors import FormatError, InputError
from aim_sdk.testing import (
    CHECKS,
    HEART,
    ConformanceError,
    backend_checks,
    check_backend,
    count,
    run_checks,
    strategies,
)
from tests.conformance import llava_mutations
from tests.conformance.broken import BROKEN, Broken, name
from tests.conformance.families import EXPECTED_FAILURES, Family
from tests.conformance.third_party import more_mutations, mutations
from tests.conformance.third_party.adapter import KiteBackend, KiteInjector


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
    known = [*BROKEN, *mutations.CAUGHT, *more_mutations.CAUGHT, *llava_mutations.CAUGHT]
    assert {check for check, *_ in known} == set(CHECKS)
    assert set(CHECKS) > HEART
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


def test_a_family_that_looks_ids_up_a_second_time_needs_no_word_of_it(good: TransformersBackend) -> None:
    check_backend(llava_mutations.looking_twice(good))


class _NothingToCompare(KiteBackend):
    @property
    def lacks(self) -> dict[type, str]:
        return {AnswersPlainly: "nobody knows"}


def test_what_does_not_apply_is_counted_apart_and_at_the_heart_it_fails_unless_declared() -> None:
    names = ["zero_demonstrations", "plain_model", "slot_never_generated"]
    with pytest.raises(
        ConformanceError, match=r"plain_model: failed: it cannot be checked: .*'plain-answers' .*: nobody knows"
    ):
        check_backend(_NothingToCompare(), checks=names)
    results = check_backend(_NothingToCompare(), checks=names, expected_failures={"plain_model": "a remote server"})
    assert [result.status for result in results] == ["passed", "not applicable", "not applicable"]
    assert results[1].message == "a remote server"
    assert count(results) == "1 passed, 2 not applicable"


class _Greedy(KiteInjector):
    def options(self, generation: Mapping[str, Any]) -> dict[str, Any]:
        if generation:
            raise InputError("greedy only")
        return super().options(generation)


def test_what_a_backend_refuses_by_itself_need_not_be_declared() -> None:
    greedy = type("Greedy", (KiteBackend,), {"injector_class": _Greedy})()
    (result,) = check_backend(greedy, checks=["identity_beams"])
    assert (result.status, result.message) == ("not applicable", "no beam search: greedy only")


def test_both_prompts_are_shown_where_identity_fails(good: TransformersBackend) -> None:
    bug = llava_mutations.second_lookup(good)
    (result,) = run_checks(bug, checks=["identity_forward"])
    _, injected, written, causes = result.message.splitlines()
    assert re.match(r"injected: '<s>.*Look.*<fused x \d+><image x \d+>.*Q: What is this\?", injected)
    assert re.match(r"written: '<s>.*Look.*Q: What colour is it\?\\nA: red.*<image x \d+>", written)
    assert causes.startswith("Usual causes: ")


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
