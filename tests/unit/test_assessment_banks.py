"""The banks of `benchmarks.assessment.known_truth` are what their names say."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from aim_sdk import Demonstration
from benchmarks.assessment.known_truth import Banks
from benchmarks.pocket.trials import pictures

COLOUR = {picture: colour for colour, of in pictures("train", "What color is the shape?").items() for picture in of}
BANKS = Banks(20)


def colours(shown: list[Demonstration]) -> list[str]:
    return [COLOUR[Path(str(one.image))] for one in shown]


@pytest.mark.parametrize("number", range(5))
def test_each_bank_is_what_its_name_says(number: int) -> None:
    drawn = {kind: draw(random.Random(f"{kind}:{number}")) for kind, draw in BANKS.kinds.items()}
    for kind, (shown, asked, wrong) in drawn.items():
        assert len({one.image for one in shown}) == len(shown) == (20 if kind != "harmful" else len(shown))
        assert (asked is not None) == (kind == "harmful")
        assert len(wrong) == (4 if kind == "mislabelled" else 0)
    shown, _, _ = drawn["helpful"]
    word = dict(zip(colours(shown), (one.answer for one in shown), strict=True))
    assert len(set(word.values())) == 2
    assert all(one.answer == word[colour] for one, colour in zip(shown, colours(shown), strict=True))
    shown, _, wrong = drawn["mislabelled"]
    other = [one.answer != word[colour] for one, colour in zip(shown, colours(shown), strict=True)]
    assert {place for place, is_other in enumerate(other) if is_other} == wrong
    shown, _, _ = drawn["text"]
    assert len({(one.text, one.answer) for one in shown}) == 2
    shown, asked, _ = drawn["harmful"]
    assert asked is not None
    assert [one.answer for one in asked] == colours(asked)
    assert not {one.image for one in asked} & {one.image for one in shown}
    assert [one.answer for one in shown] != colours(shown)
    shown, _, _ = drawn["useless"]
    assert sorted(one.answer for one in shown) == ["blick"] * 10 + ["dax"] * 10
