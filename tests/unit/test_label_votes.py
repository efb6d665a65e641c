"""Notes of labels: what is counted is counted once."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from aim_sdk.injection.choices import alike
from aim_sdk.injection.classification import Classifier
from aim_sdk.injection.contexts import Contexts
from aim_sdk.injection.label_notes import LabelWarning, Own, note_alike, note_choices_without_examples
from aim_sdk.injection.shots import Shots
from aim_sdk.types import Query

VOTES = {"half": {"cat": 0.5, "fox": 0.5}, "whole": {"cat": 1.0}, "none": {"fox": 1.0}}


@pytest.mark.parametrize("order", [["half", "none", "whole", "whole"], ["whole", "half", "whole", "none"]])
def test_votes_are_counted_once_where_a_batch_is_asked_again(order: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """An image that has no vote for a choice is left out, and the others of its batch are voted on again."""
    monkeypatch.setattr(Classifier, "_shares", lambda _, queries: ((VOTES[query.text], ()) for query in queries))
    monkeypatch.setattr(Own, "add", lambda *_: None)
    contexts = cast(Contexts, SimpleNamespace(bank=None))
    classifier = Classifier(contexts, ["cat", "ox"], Shots(2, mode="nearest"), "tokens")
    failed: list[int] = []
    queries = [Query("a.png", text) for text in order]
    made = classifier.those_that_can(queries, range(4), lambda place, error: failed.append(place))
    assert (len(made), [order[place] for place in failed]) == (4, ["none"])
    with pytest.warns(
        LabelWarning, match=r"16\.7 % of the votes on 3 labelled images went to answers that are not choices \('fox'\)"
    ):
        classifier.conclude()


def test_a_note_lists_so_many_choices(recwarn: Any) -> None:
    note_choices_without_examples([f"choice {n}" for n in range(40)] + ["cat"], {"cat"}, votes=True)
    (said,) = recwarn
    assert str(said.message).count("'choice ") <= 20
    assert " or others" in str(said.message)


def test_labels_that_only_case_or_blanks_tell_apart(recwarn: Any) -> None:
    assert alike(["Red", "red ", "blue  sky", "blue\xa0sky", "green"]) == [("Red", "red"), ("blue  sky", "blue\xa0sky")]
    note_alike(["red", "green"], {"red", "Red", "Other", "other"})
    note_alike(["red", "green"], {"RED", "green"})  # one is no choice, which is noted as such
    (said,) = recwarn
    assert str(said.message) == "only case or blanks tell apart 'Red' and 'red'; they count as different labels."
