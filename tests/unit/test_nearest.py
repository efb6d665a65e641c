"""The vote of the nearest demonstrations, by hand and by brute force."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from aim_sdk import Demonstration, Query
from aim_sdk.errors import InputError, ShotsError
from aim_sdk.selection.nearest import vote, votes
from tests.banks import CountingEncoder, open_bank

RED, BLUE = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
NEIGHBOURS = st.lists(st.tuples(st.floats(-1, 1), st.sampled_from("abc")), min_size=1, max_size=12)


class AngleEncoder(CountingEncoder):
    """A text is an angle in degrees; the pooled reading points there."""

    def reading(self, item: Demonstration) -> Any:
        return self.vector(item.text)

    def pooled(self, reading: Any) -> Any:
        return reading

    def pooled_queries(self, queries: Sequence[Query]) -> Any:
        return np.stack([self.vector(query.text) for query in queries])

    @staticmethod
    def vector(text: str) -> np.ndarray:
        angle = math.radians(float(text))
        return np.array([math.cos(angle), math.sin(angle)], np.float32)


@given(NEIGHBOURS, st.floats(0.01, 10))
def test_a_vote_is_a_softmax_summed_by_answer(near: list[tuple[float, str]], temperature: float) -> None:
    shares = vote([s for s, _ in near], [a for _, a in near], temperature=temperature)
    weights = {answer: sum(math.exp(s / temperature) for s, a in near if a == answer) for _, answer in near}
    assert shares == pytest.approx({answer: w / sum(weights.values()) for answer, w in weights.items()})
    assert sum(shares.values()) == pytest.approx(1)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)


def test_equal_shares_go_to_the_nearest_and_equally_near_ones_to_the_first() -> None:
    assert list(vote([0.1, 0.9, 0.8, 0.2], ["cat", "dog", "cat", "dog"], temperature=math.inf)) == ["dog", "cat"]
    assert list(vote([0.5, 0.5], ["cat", "dog"])) == ["cat", "dog"]
    assert list(vote([0.5, 0.5], ["dog", "cat"])) == ["dog", "cat"]


def test_extremes_do_not_overflow() -> None:
    assert vote([1, -1], ["a", "b"], temperature=1e-9) == {"a": 1.0, "b": 0.0}
    assert vote([], []) == {}


@pytest.mark.parametrize(
    ("similarities", "answers", "temperature", "message"),
    [
        ([1.0], [], 0.1, "1 similarities and 0 answers"),
        ([math.nan], ["a"], 0.1, "NaN or infinite"),
        ([1.0], ["a"], 0.0, "temperature=0.0"),
        ([1.0], ["a"], math.nan, "temperature=nan"),
    ],
)
def test_what_cannot_vote(similarities: list[float], answers: list[str], temperature: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        vote(similarities, answers, temperature=temperature)


def test_the_nearest_of_a_bank_vote_and_a_query_s_own_never_does() -> None:
    bank = open_bank(AngleEncoder(), None)
    angles = {"0": "east", "20": "east", "90": "north", "110": "north", "200": "west"}
    bank.add([Demonstration(RED, text, answer, {"id": text}) for text, answer in angles.items()])
    east, north = votes(bank, [Query(BLUE, "10"), Query(BLUE, "100")], 2)
    assert (list(east), list(north)) == (["east"], ["north"])
    (west,) = votes(bank, [Query(BLUE, "200")], 1)
    assert list(west) == ["west"]
    for own in (Query(RED, "200"), Query(BLUE, "200", id="200")):  # by its content, by its id
        (shares,) = votes(bank, [own], None)
        assert set(shares) == {"east", "north"}
    with pytest.raises(ShotsError, match="5 shots"):
        votes(bank, [Query(RED, "200")], 5)
    (some,) = votes(bank, [Query(BLUE, "10")], None, where={"id": ["90", "200"]})
    assert set(some) == {"north", "west"}
    assert votes(bank, [Query(BLUE, "10")], 0) == [{}]
