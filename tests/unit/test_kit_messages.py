"""What the conformance kit says where a check fails: the place in the adapter, and how names are checked."""

from typing import Any

import pytest

from aim_sdk.backend.registry import BackendInfo
from aim_sdk.errors import InputError
from aim_sdk.testing import BackendTests, run_checks
from aim_sdk.testing.kit import by_message
from tests.conformance.third_party import (
    mutations_of_answers,
    mutations_of_backends,
    mutations_of_prompts,
    mutations_of_reading,
    unseen,
)
from tests.conformance.third_party.adapter import KiteBackend, KiteInjector
from tests.conformance.third_party.model import decode
from tests.conformance.third_party.mutant import Part, mutant


class _Crashes(KiteInjector):
    def score(self, *args: Any, **options: Any) -> Any:
        return [1][self.wrong()]  # type: ignore[call-overload]

    def wrong(self) -> Any:
        try:
            raise KeyError("why")
        except KeyError as error:
            raise TypeError("no index") from error


def test_an_exception_has_its_place_in_the_adapter() -> None:
    (result,) = run_checks(mutant(_Crashes), checks=["sensitivity"])
    first, *places = result.message.splitlines()
    assert first == "TypeError: no index"
    assert [place.rpartition(", in ")[2] for place in places if ", in " in place] == [
        "score: return [1][self.wrong()]  # type: ignore[call-overload]",
        'wrong: raise TypeError("no index") from error',
        'wrong: raise KeyError("why")',
    ]
    assert all(__file__ in place for place in places if ", in " in place)
    assert "caused by KeyError: 'why'" in places


def test_expected_failures_name_checks() -> None:
    with pytest.raises(InputError, match=r"no check named 'sensitivty'\. Did you mean 'sensitivity'"):
        type("TestMine", (BackendTests,), {"expected_failures": {"sensitivty": "no reason"}})
    type("TestMine", (BackendTests,), {"expected_failures": {"sensitivity": "a reason"}})


class _DullForEverybody(KiteBackend):
    """Its own documentation gets the same out of it."""

    model_class = mutations_of_backends.Dull

    def plain_answer(self, *args: Any, **options: Any) -> list[int]:
        return [1, 2]


class _Toad(KiteBackend):
    name = "toad"


def test_a_class_that_is_registered_under_another_name_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    known = BackendInfo("frog", f"{_Toad.__module__}:_Toad [extra]", "aim-frog", "1", "ready")
    monkeypatch.setattr("aim_sdk.testing.backends.list_backends", lambda: [known])
    (result,) = run_checks(_Toad(), checks=["declarations"])
    assert result.status == "failed"
    assert result.message.startswith("it is registered as 'frog', and its `name` is 'toad'")


def test_a_wrong_type_is_named_alone() -> None:
    (result,) = run_checks(mutant(mutations_of_reading.ReaderGivesLists), checks=["return_types"])
    assert result.message.startswith("Reading.token_ids: expected a one-dimensional tensor of integers; got a list of ")
    assert len(result.message.splitlines()[0]) < 200


@pytest.mark.parametrize(
    ("bug", "told"),
    [
        (mutations_of_reading.SystemDropped, "the bug is in the adapter"),
        (_DullForEverybody, "the model says too little"),
    ],
)
def test_sensitivity_says_whether_it_is_the_adapter_or_the_model(bug: Part, told: str) -> None:
    (result,) = run_checks(mutant(bug), checks=["sensitivity"])
    assert "expected some change above" in result.message
    assert "3 times the noise of torch.float32" in result.message
    assert told in result.message


def test_checks_that_say_the_same_stand_together() -> None:
    names = ["slot_never_generated", "sampling", "slot_changes_nothing"]
    results = list(run_checks(KiteBackend(), checks=names))
    assert [together for together, _, _ in by_message(results)] == [
        ["slot_never_generated", "slot_changes_nothing"],
        ["sampling"],
    ]


class _TextUncleaned(KiteInjector):
    def clean(self, ids: list[int], stop: str | None) -> str:
        return f" {decode(ids)}"


class _OtherRowsFirst(KiteInjector):
    def generate(self, queries: Any, contexts: Any, **options: Any) -> Any:
        return super().generate(queries[::-1], contexts[::-1], **options)


@pytest.mark.parametrize(
    ("check", "bug", "told"),
    [
        ("stop_string", _TextUncleaned, "is not cleaned: it has blanks around it; does `generate` call `clean_answer`"),
        ("identity_forward", unseen.LastTwelveShots, "prompts with [20] demonstrations' injected text have "),
        ("identity_forward", unseen.LastTwelveShots, "are demonstrations dropped, or cut?"),
        ("too_long_is_refused", unseen.LastTwelveShots, "demonstrations are dropped silently"),
        ("identity_batch", _OtherRowsFirst, "rows in another order, or counted with their padding?"),
        ("identity_chat", mutations_of_prompts.FusedBehindTheRole, "in the chat format without a system text"),
        ("identity_chat", mutations_of_prompts.FusedBehindTheRole, "fused tokens of 1 demonstrations][image]What is "),
        ("interleaved", mutations_of_prompts.InterleavedTurned, "[image]And this? -> a black cat\\n[image]What colour"),
        ("stop_string", mutations_of_answers.StopNotCut, "in the plain format '{image} Q: {text}\\nA: {answer}"),
        (
            "identity_batch",
            mutations_of_prompts.PaddingAttended,
            "\nUsual causes: padding that is attended to, positions",
        ),
    ],
)
def test_a_failure_says_what_to_look_for(check: str, bug: Part, told: str) -> None:
    (result,) = run_checks(mutant(bug), checks=[check])
    assert result.status == "failed"
    assert told in result.message


def test_an_exception_has_no_usual_causes() -> None:
    (result,) = run_checks(mutant(_Crashes), checks=["sensitivity"])
    assert "Usual causes" not in result.message
