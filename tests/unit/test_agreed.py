"""The selector `agreed` against brute force, on exact vectors: corners of a cube, whose cosines are halves."""

import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from aim_sdk import AIMPipeline, Demonstration, DemonstrationBank, Query
from aim_sdk.errors import InputError
from aim_sdk.selection import AgreedSelector, ReadingSelector, agreed, base, get_selector
from tests.banks import CountingEncoder, open_bank

PICTURE = Image.new("RGB", (4, 4), "red")
OTHER = Image.new("RGB", (4, 4), "blue")
Vector = tuple[float, ...]


class VectorEncoder(CountingEncoder):
    """The pooled vectors are given: a demonstration's by the number in its text, a query's by its text."""

    def __init__(self, vectors: Sequence[Vector], asked: dict[str, Vector]) -> None:
        super().__init__()
        self.vectors, self.asked = np.array(vectors, np.float32), asked

    def pooled(self, reading: Any) -> np.ndarray:
        return np.array(self.vectors[reading.image_position])

    def reading(self, item: Demonstration) -> Any:
        made = super().reading(item)
        return type(made)(made.token_ids, made.hidden, made.embeddings, int(item.text), made.answer_start)

    def pooled_queries(self, queries: Sequence[Query]) -> np.ndarray:
        return np.array([self.asked[query.text] for query in queries], np.float32)


def filled(
    vectors: Sequence[Vector], answers: Sequence[str], asked: dict[str, Vector], groups: Sequence[int] | None = None
) -> tuple[DemonstrationBank, list[str]]:
    bank = open_bank(VectorEncoder(vectors, asked), None)
    groups = groups or [0] * len(vectors)
    return bank, bank.add(
        [
            Demonstration(PICTURE, str(n), answer, {"id": f"d{n}", "label": answer.strip(), "group": group})
            for n, (answer, group) in enumerate(zip(answers, groups, strict=True))
        ]
    )


def cosine(one: Vector, other: Vector) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True)) / 4  # their length is 2


def contradicted(place: int, voters: Sequence[int], vectors: Sequence[Vector], answers: Sequence[str]) -> bool:
    """By definition: of the nearest 8, weighted."""
    others = [n for n in voters if n != place]
    if answers[place] not in {answers[n] for n in others}:
        return False
    nearest = sorted(others, key=lambda n: (-cosine(vectors[n], vectors[place]), n))[:8]
    weights: dict[str, list[float]] = defaultdict(list)
    for n in nearest:
        weights[answers[n]].append(math.exp(10 * cosine(vectors[n], vectors[place])))
    sums = {answer: math.fsum(found) for answer, found in weights.items()}
    return sums.get(answers[place], 0.0) < max(sums.values())


def brute_force(
    asked: Vector,
    pool: Sequence[int],
    vectors: Sequence[Vector],
    answers: Sequence[str],
    judged: int,
    shots: int,
    balance: bool,
) -> list[int]:
    """What must be shown, in the order of the prompt."""
    near = sorted(pool, key=lambda n: (-cosine(vectors[n], asked), n))
    group = {n: 2 * contradicted(n, pool, vectors, answers) if turn < judged else 1 for turn, n in enumerate(near)}
    ranked = sorted(near, key=group.__getitem__)
    chosen = ranked
    if balance:
        seen: Counter[str] = Counter()
        turns = {}
        for n in ranked:
            turns[n] = seen[answers[n]]
            seen[answers[n]] += 1
        chosen = sorted(ranked, key=turns.__getitem__)
    return sorted(chosen[:shots], key=ranked.index, reverse=True)


CORNERS = st.tuples(*[st.sampled_from([-1.0, 1.0])] * 4)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_shown_are_those_of_the_definition(data: st.DataObject) -> None:
    half = data.draw(st.lists(CORNERS, min_size=2, max_size=14))
    vectors = [*half, *(tuple(-x for x in corner) for corner in half)]  # their mean is zero
    count = len(vectors)
    answers = data.draw(st.lists(st.sampled_from(["a", "b", " b", "c"]), min_size=count, max_size=count))
    groups = data.draw(st.lists(st.sampled_from([1, 1, 2]), min_size=count, max_size=count))
    where = data.draw(st.sampled_from([None, {"group": 1}]))
    balance = data.draw(st.booleans())
    asked = data.draw(st.lists(CORNERS, min_size=1, max_size=4))
    own = data.draw(st.lists(st.integers(0, count), min_size=len(asked), max_size=len(asked)))
    judged = data.draw(st.sampled_from([1, 3, 6, 64]))
    stripped = [answer.strip() for answer in answers]
    allowed = [n for n in range(count) if where is None or groups[n] == 1]
    pools = [[n for n in allowed if n != place] for place in own]
    assume(len(allowed) >= 2 * len({stripped[n] for n in allowed}) > 0)
    shots = data.draw(st.integers(1, max(1, min(map(len, pools)))))
    assume(shots <= min(map(len, pools)))

    bank, keys = filled(vectors, answers, {f"q{n}": vector for n, vector in enumerate(asked)}, groups)
    queries = [Query(OTHER, f"q{n}", id=f"d{place}") for n, place in enumerate(own)]
    selector = AgreedSelector(where=where, balance="label" if balance else None)
    expected = [
        [keys[n] for n in brute_force(vector, pool, vectors, stripped, judged, shots, balance)]
        for vector, pool in zip(asked, pools, strict=True)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agreed, "JUDGED", judged)
        assert selector.select(bank.view(), queries, shots) == expected
        view = bank.view()
        singly = [selector.select(view, [query], shots)[0] for query in reversed(queries)]
        assert singly[::-1] == expected, "one query at a time, in another order, with what was looked up before"


UP: Vector = (1.0, 1.0, 1.0, 1.0)
DOWN: Vector = (-1.0, -1.0, -1.0, -1.0)


@settings(max_examples=25, deadline=None)
@given(st.sets(st.integers(0, 8), max_size=3), st.sets(st.integers(9, 17), max_size=3))
def test_no_wrong_answer_is_shown_where_fewer_than_half_are_wrong(up: set[int], down: set[int]) -> None:
    """Two classes of nine, whose members are each other's neighbours: at most 3 of the 8 that judge one are wrong."""
    wrong = up | down
    truth = ["lynx"] * 9 + ["fox"] * 9
    answers = [{"lynx": "fox", "fox": "lynx"}[name] if n in wrong else name for n, name in enumerate(truth)]
    bank, keys = filled([UP] * 9 + [DOWN] * 9, answers, {"up": UP, "down": DOWN})
    queries = [Query(OTHER, "up"), Query(OTHER, "down")]
    shown = AgreedSelector().select(bank.view(), queries, 6)
    assert shown == [[keys[n] for n in sorted(set(range(9)) - up)[:6][::-1]],
                     [keys[n] for n in sorted(set(range(9, 18)) - down)[:6][::-1]]]  # fmt: skip
    near = ReadingSelector().select(bank.view(), queries, 9)
    assert [{keys.index(key) for key in found} & wrong for found in near] == [up, down], "reading shows all of them"


def test_it_halves_the_wrong_answers_of_noisy_clouds() -> None:
    """A fifth of the answers of two overlapping clouds is wrong; shares of wrong answers among 4 shown, 40 banks."""
    wrong_shown: Counter[str] = Counter()
    for seed in range(40):
        rng, draw = np.random.default_rng(seed), random.Random(seed)
        truth = [n % 2 for n in range(40)]
        vectors = [tuple(rng.normal(2 * side - 1, 1, 4)) for side in truth]
        wrong = set(draw.sample(range(40), 8))
        asked = {f"q{n}": tuple(rng.normal(2 * (n % 2) - 1, 1, 4)) for n in range(10)}
        bank, keys = filled(vectors, ["ab"[side ^ (n in wrong)] for n, side in enumerate(truth)], asked)
        for name in ("reading", "agreed"):
            shown = get_selector(name).select(bank.view(), [Query(OTHER, text) for text in asked], 4)
            wrong_shown[name] += sum(keys.index(key) in wrong for found in shown for key in found)
    assert 0.15 < wrong_shown["reading"] / 1600 < 0.25
    assert wrong_shown["agreed"] < wrong_shown["reading"] / 2


def test_a_query_s_own_answer_does_not_choose_what_it_is_shown() -> None:
    """Leave-one-out: five lynxes and four foxes lie together; whichever answer the query has, it has no vote."""
    asked = {"q": UP}
    shown = []
    for own_answer in ("lynx", "fox"):
        answers = [own_answer, *["lynx", "fox"] * 4, "fox", "lynx", "fox", "fox"]
        bank, keys = filled([UP] * 9 + [DOWN] * 4, answers, asked)
        (found,) = AgreedSelector().select(bank.view(), [Query(OTHER, "q", id="d0")], 4)
        shown.append([keys.index(key) for key in found])
    assert shown[0] == shown[1]


def test_the_next_neighbour_votes_instead_of_the_query_s_own() -> None:
    """The last fox is judged by four foxes and four lynxes; without the eighth voter it would be contradicted."""
    answers = ["lynx", *["fox"] * 3, *["lynx"] * 4, "fox", "fox"]
    bank, keys = filled([UP] * 10 + [DOWN] * 10, answers + ["fox"] * 10, {"q": UP})
    (found,) = AgreedSelector().ranked(bank.view(), [Query(OTHER, "q", id="d0")], 19)
    assert dict(found)[keys[9]] == pytest.approx(1)


def test_what_where_excludes_does_not_vote() -> None:
    vectors = [UP] * 8 + [DOWN] * 4
    answers = ["lynx"] * 3 + ["fox"] * 5 + ["fox"] * 4
    bank, keys = filled(vectors, answers, {"q": UP}, [0, 0, 0, 1, 1, 1, 1, 1, 0, 0, 0, 0])
    asked = [Query(OTHER, "q")]
    assert set(AgreedSelector().select(bank.view(), asked, 3)[0]) <= set(keys[3:8]), "lynxes are outvoted"
    assert AgreedSelector(where={"group": 0}).select(bank.view(), asked, 3) == [keys[2::-1]]
    few = bank.view().among(frozenset([*keys[:3], *keys[8:]]))
    assert AgreedSelector().select(few, asked, 3) == [keys[2::-1]]


def test_the_only_one_of_its_answer_is_not_contradicted() -> None:
    answers = ["lynx", *["fox"] * 9]
    bank, keys = filled([UP, *[UP] * 5, *[DOWN] * 4], answers, {"q": UP})
    assert AgreedSelector().select(bank.view(), [Query(OTHER, "q")], 1) == [keys[:1]]
    answers[-1] = "lynx"
    bank, keys = filled([UP, *[UP] * 5, *[DOWN] * 4], answers, {"q": UP})
    assert AgreedSelector().select(bank.view(), [Query(OTHER, "q")], 1) == [keys[1:2]], "two of them can disagree"
    assert AgreedSelector().select(bank.view(), [Query(OTHER, "q", id="d9")], 1) == [keys[:1]], "the other is its own"


def test_votes_are_weighted_by_cosines_whatever_the_lengths_are() -> None:
    """One fox at cosine 1 has e^10 votes, three lynxes at cosine .95 have 3 e^9.5: 1.8 times as many."""
    lynx = (0.95, math.sqrt(1 - 0.95**2))
    half = [(10.0, 0.0), (1.0, 0.0), lynx, lynx, lynx]
    vectors = [*half, *((-x, -y) for x, y in half)]
    bank, keys = filled(vectors, ["fox", "fox", "lynx", "lynx", "lynx"] * 2, {"q": (1.0, 0.0)})
    assert AgreedSelector().select(bank.view(), [Query(OTHER, "q")], 3) == [keys[4:1:-1]]
    assert set(ReadingSelector().select(bank.view(), [Query(OTHER, "q")], 2)[0]) == set(keys[:2])


def test_it_follows_the_bank() -> None:
    answers = ["fox", "lynx", "lynx", "lynx", "fox", "fox", "fox", *["fox"] * 6]
    bank, keys = filled([UP] * 7 + [DOWN] * 6, answers, {"q": UP})
    asked = [Query(OTHER, "q")]
    assert AgreedSelector().select(bank.view(), asked, 1) == [keys[:1]], "a lynx sees two lynxes and four foxes"
    bank.remove(*keys[4:7])
    assert AgreedSelector().select(bank.view(), asked, 1) == [keys[1:2]], "the fox sees three lynxes"


def test_parts_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    vectors = [tuple(row) for row in rng.normal(size=(70, 5))]
    answers = rng.choice(["a", "b", "c"], 70).tolist()
    asked = {f"q{n}": tuple(rng.normal(size=5)) for n in range(9)}
    queries = [Query(OTHER, text) for text in asked]
    bank, _ = filled(vectors, answers, asked)
    together = AgreedSelector().ranked(bank.view(), queries, 70)
    monkeypatch.setattr(base, "_SCORES", 70 * 2)
    monkeypatch.setattr(agreed, "_SCORES", 70 * 3)
    again, _ = filled(vectors, answers, asked)
    assert AgreedSelector().ranked(again.view(), queries, 70) == together
    assert {-4.01 < score < 1.01 for found in together for _, score in found} == {True}


@pytest.mark.parametrize("count", [1, 5])
def test_answers_that_are_no_closed_set_are_refused(count: int) -> None:
    bank, _ = filled([UP] * count, [f"a caption, number {n}" for n in range(count)], {"q": UP})
    with pytest.raises(InputError, match=rf"{count} demonstrations have {count} distinct .*'a caption, number 0'"):
        AgreedSelector().select(bank.view(), [Query(OTHER, "q")], 1)
    assert AgreedSelector().select(bank.view(), [Query(OTHER, "q")], 0) == [[]]


def test_in_the_pipeline(tiny: Callable[[str], Path], pictures: list[Image.Image]) -> None:
    pipe = AIMPipeline.from_pretrained("llava", model=tiny("llava-1.5"), projector="residual", device="cpu")
    items = [Demonstration(picture, "What is it?", "ab"[n % 2]) for n, picture in enumerate(pictures[:6])]
    pipe.bank.add(items)
    asked = Query(pictures[6], "What is it?")
    (keys,) = get_selector("agreed").select(pipe.bank.view(), [asked], 3)
    shown = [pipe.bank[key].demonstration for key in keys]
    made = pipe.generate([asked], shots=3, selector="agreed", max_new_tokens=2)
    assert made == pipe.generate([asked], demonstrations=shown, max_new_tokens=2)
