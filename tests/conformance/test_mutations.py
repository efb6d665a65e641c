"""The kit catches what goes wrong in adapters: each bug, by the check that names it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from aim_backends.llava import LlavaBackend
from aim_sdk.testing import check_backend, run_checks
from tests.conformance import llava_mutations
from tests.conformance.broken import Broken
from tests.conformance.third_party import mutations
from tests.conformance.third_party.adapter import KiteBackend
from tests.conformance.third_party.mutant import Part, mutant


def test_a_finished_third_party_backend_passes() -> None:
    results = check_backend(KiteBackend())
    assert {result.check for result in results if result.status == "not applicable"} == {
        "slot_never_generated",
        "slot_changes_nothing",
        "recomputed_activations",
        "sampling",
        "cost_is_foreseen",
        "choices_are_kept",
        "schema_is_kept",
        "constrained_is_free",
        "boxes_are_kept",
    }


@pytest.mark.parametrize(("check", "bug"), mutations.CAUGHT, ids=lambda value: getattr(value, "__name__", value))
def test_a_bug_of_a_third_party_backend_is_caught(check: str, bug: Part) -> None:
    (result,) = run_checks(mutant(bug), checks=[check])
    assert result.status == "failed"
    assert result.message


@pytest.mark.parametrize(
    ("check", "broken"),
    [(check, broken) for check, _, broken in llava_mutations.CAUGHT],
    ids=[f"{check}-{what}" for check, what, _ in llava_mutations.CAUGHT],
)
def test_a_bug_of_a_tiny_llava_is_caught(tiny: Callable[[str], Path], check: str, broken: Broken) -> None:
    good = LlavaBackend.from_pretrained(str(tiny("llava-1.5")), device="cpu")
    (result,) = run_checks(broken(good), checks=[check])
    assert result.status == "failed"
    assert result.message
