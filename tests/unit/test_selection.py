"""Selectors against brute force, and what no selector may do."""

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from aim_sdk import AIMPipeline, Demonstration, DemonstrationBank, Query, get_selector
from aim_sdk.bank import BankView
from aim_sdk.errors import InputError, ShotsError
from aim_sdk.selection import base
from aim_sdk.selection.base import DEFAULT_SHOTS, Selector, chosen
from aim_sdk.selection.builtin import FirstSelector, RandomSelector, ReadingSelector
from aim_sdk.selection.ranking import best
from aim_sdk.support.vectors import dot, unit
from tests.banks import CountingEncoder, open_bank

PICTURE = Image.new("RGB", (4, 4), "red")
OTHER = Image.new("RGB", (4, 4), "blue")


class VectorSelector(Selector):
    """Cosines of given vectors: the demonstrations' by their text, the queries' by their id or text."""

    name = "vectors"

    def __init__(self, vectors: np.ndarray, asked: np.ndarray, **options: Any) -> None:
        super().__init__(**options)
        self.vectors, self.asked, self.calls = unit(vectors), unit(asked), 0

    def scores(self, view: BankView, queries: Sequence[Query], candidates: np.ndarray) -> np.ndarray:
        self.calls += 1
        kept = view.features("vectors", lambda items: np.stack([self.vectors[int(item.text)] for item in items]))
        return dot(np.stack([self.asked[int(query.text)] for query in queries]), kept, candidates)


def demonstrations(labels: Sequence[Any], groups: Sequence[Any] | None = None) -> list[Demonstration]:
    groups = groups or ["any"] * len(labels)
    return [
        Demonstration(PICTURE, str(n), "yes", {"id": f"d{n}", "label": label, "group": group})
        for n, (label, group) in enumerate(zip(labels, groups, strict=True))
    ]


def filled(items: Sequence[Demonstration]) -> tuple[DemonstrationBank, list[str]]:
    bank = open_bank(CountingEncoder(), None)
    return bank, bank.add(items)


def brute_force(
    scores: Sequence[float], pool: Sequence[int], labels: Sequence[Any] | None, shots: int | None
) -> list[int]:
    """What must be shown, in the order of the prompt."""
    ranked = sorted(pool, key=lambda n: (-scores[n], n))
    chosen = ranked
    if labels is not None:
        seen: Counter[Any] = Counter()
        turns = {}
        for n in ranked:
            turns[n] = seen[labels[n]]
            seen[labels[n]] += 1
        chosen = sorted(ranked, key=turns.__getitem__)
    return sorted(chosen[: DEFAULT_SHOTS if shots is None else shots], key=ranked.index, reverse=True)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_the_best_are_chosen_as_brute_force_chooses(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 30))
    grid = st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=3, max_size=3)  # coarse: many are equal
    rows = np.array(data.draw(st.lists(grid, min_size=count, max_size=count)), np.float32)
    asked = np.array(data.draw(st.lists(grid, min_size=1, max_size=4)), np.float32)
    labels = data.draw(st.lists(st.sampled_from(["a", "b", "c"]), min_size=count, max_size=count))
    groups = data.draw(st.lists(st.sampled_from([1, 2]), min_size=count, max_size=count))
    where = data.draw(st.sampled_from([None, {"group": 1}, {"group": [1, 2], "label": "a"}]))
    balance = data.draw(st.sampled_from([None, "label"]))
    own = data.draw(st.lists(st.integers(0, count), min_size=len(asked), max_size=len(asked)))
    shots = data.draw(st.one_of(st.none(), st.integers(0, 9)))

    bank, keys = filled(demonstrations(labels, groups))
    # OTHER: the query's image and text are no demonstration's, its id may be one's
    queries = [Query(OTHER, str(n), id=f"d{place}") for n, place in enumerate(own)]
    selector = VectorSelector(rows, asked, where=where, balance=balance)
    allowed = [
        n
        for n in range(count)
        if where is None or (groups[n] in np.atleast_1d(where["group"]) and where.get("label", labels[n]) == labels[n])
    ]
    pools = [[n for n in allowed if n != place] for place in own]
    if shots != 0 and (not allowed or min(map(len, pools)) < (shots or 0)):
        with pytest.raises(ShotsError):
            selector.select(bank.view(), queries, shots)
        return
    expected = [
        brute_force([float(np.dot(v, q)) for v in unit(rows)], pool, labels if balance else None, shots)
        for q, pool in zip(unit(asked), pools, strict=True)
    ]
    assert selector.select(bank.view(), queries, shots) == [[keys[n] for n in places] for places in expected]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(1, 60), st.one_of(st.none(), st.integers(1, 5))
)
def test_best_keeps_the_order_of_equal_scores(values: list[int], count: int, labels: int | None) -> None:
    numbers = None if labels is None else np.arange(len(values)) % labels
    found = best(np.array(values, np.float32), min(count, len(values)), numbers)
    expected = brute_force(values, range(len(values)), numbers, min(count, len(values)))
    assert found.tolist() == expected[::-1]


def test_equal_rows_have_equal_scores_wherever_they_stand() -> None:
    generator = np.random.default_rng(0)
    row, asked = generator.standard_normal((1, 77)), unit(generator.standard_normal((5, 77)).astype(np.float32))
    vectors = unit(np.repeat(row, 5003, 0).astype(np.float32))
    everything = np.arange(len(vectors))
    scores = dot(asked, vectors, everything)
    assert (scores == scores[:, :1]).all()
    assert (dot(asked[2:3], vectors, everything[1::7]) == scores[2, 0]).all()


def test_dot_reads_the_rows_of_the_candidates() -> None:
    generator = np.random.default_rng(1)
    vectors, asked = (generator.standard_normal((n, 9)).astype(np.float32) for n in (5001, 3))
    candidates = np.flatnonzero(generator.random(5001) < 0.6)
    expected = asked.astype(np.float64) @ vectors[candidates].T.astype(np.float64)
    np.testing.assert_allclose(dot(asked, vectors, candidates), expected, atol=1e-5)
    np.testing.assert_allclose(dot(asked, vectors, np.arange(5001)), asked @ vectors.T, atol=1e-5)


def test_many_queries_are_chosen_for_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(2)
    selector = VectorSelector(*(generator.standard_normal((n, 5)).astype(np.float32) for n in (12, 7)))
    bank, _ = filled(demonstrations(["a"] * 12))
    queries = [Query(OTHER, str(n)) for n in range(7)]
    together = selector.select(bank.view(), queries, 3)
    monkeypatch.setattr(base, "_SCORES", 12 * 3)
    assert selector.select(bank.view(), queries, 3) == together
    assert selector.calls == 1 + 3


def test_first_shows_the_order_of_addition() -> None:
    bank, keys = filled(demonstrations(["a", "a", "b", "b", "b"]))
    query = Query(OTHER, "?")
    assert FirstSelector().select(bank.view(), [query, query], 3) == [keys[:3]] * 2
    assert FirstSelector().select(bank.view(), [query], None) == [keys]
    assert FirstSelector(where={"label": "b"}).select(bank.view(), [query], 2) == [keys[2:4]]
    assert FirstSelector(balance="label").select(bank.view(), [query], 3) == [[keys[0], keys[1], keys[2]]]
    assert FirstSelector(balance="label").select(bank.view(), [query], 4) == [[keys[0], keys[1], keys[2], keys[3]]]
    assert FirstSelector().select(bank.view(), [query], 0) == [[]]
    assert FirstSelector().select(bank.view(), [], 3) == []


def test_a_draw_depends_on_seed_and_query_alone() -> None:
    bank, keys = filled(demonstrations(["a"] * 40))
    queries = [Query(OTHER, "?", id=name) for name in ("x", "y", "z")]
    view = bank.view()
    draws = RandomSelector(seed=3).select(view, queries, 6)
    assert RandomSelector(seed=3).select(view, queries[::-1], 6) == draws[::-1]
    assert RandomSelector(seed=3).select(view, queries[1:2], 6) == draws[1:2]
    assert RandomSelector(seed=3).select(view, [Query(PICTURE, "else", id="y")], 6) == draws[1:2], "seeded by the id"
    assert RandomSelector(seed=4).select(view, queries, 6) != draws
    assert len(set(map(tuple, draws))) == 3
    assert all(len(set(draw)) == 6 and set(draw) < set(keys) for draw in draws)
    unnamed = [Query(OTHER, "one"), Query(OTHER, "two"), Query(PICTURE, "one")]
    assert len(set(map(tuple, RandomSelector().select(view, unnamed, 6)))) == 3, "without an id: by image and text"
    assert RandomSelector().select(view, unnamed[:1], 6) == RandomSelector().select(view, unnamed, 6)[:1]


def test_draws_are_even() -> None:
    bank, keys = filled(demonstrations(["a"] * 10))
    queries = [Query(OTHER, "?", id=f"q{n}") for n in range(1000)]
    counts = Counter(key for draw in RandomSelector().select(bank.view(), queries, 2) for key in draw)
    assert set(counts) == set(keys)
    assert 140 < min(counts.values()) <= max(counts.values()) < 260  # 200 each, sigma 13


@pytest.mark.parametrize("name", ["agreed", "first", "random", "reading"])
def test_a_query_is_never_shown_its_own(name: str) -> None:
    items = demonstrations(["a"] * 6)
    bank, keys = filled_for_reading(items)
    by_id = Query(OTHER, "something else", id="d2")
    by_content = Query(PICTURE, "4")
    alike = Query(OTHER, "4")
    chosen = get_selector(name).select(bank.view(), [by_id, by_content, alike], None)
    assert [set(keys) - set(shown) for shown in chosen] == [{keys[2]}, {keys[4]}, set()]
    with pytest.raises(ShotsError, match=r"6 shots asked for, but only 5 of the bank's 6 demonstrations may be shown"):
        get_selector(name).select(bank.view(), [by_id], 6)


@pytest.mark.parametrize("name", ["agreed", "first", "random", "reading"])
def test_balance_shows_each_label_as_often_as_the_others(name: str) -> None:
    labels = ["a", "b", True, "a", "b", "a", "a", "a", "a"]
    bank, keys = filled_for_reading(demonstrations(labels))
    selector = type(get_selector(name))(balance="label")
    of = dict(zip(keys, labels, strict=True))
    for shots, expected in ((3, [1, 1, 1]), (5, [2, 2, 1]), (7, [4, 2, 1])):
        (chosen,) = selector.select(bank.view(), [Query(OTHER, "?")], shots)
        assert sorted(Counter(of[key] for key in chosen).values(), reverse=True) == expected


def test_a_balance_field_that_is_missing_is_explained() -> None:
    bank, _ = filled([*demonstrations(["a", "b"]), Demonstration(PICTURE, "bare", "yes")])
    with pytest.raises(InputError, match=r"balance='lable': 3 of 3 .* Did you mean 'label'"):
        FirstSelector(balance="lable").select(bank.view(), [Query(OTHER, "?")], 1)
    with pytest.raises(InputError, match="balance='label': 1 of 3"):
        FirstSelector(balance="label").select(bank.view(), [Query(OTHER, "?")], 1)
    assert FirstSelector(balance="label", where={"label": ["a", "b"]}).select(bank.view(), [Query(OTHER, "?")], 2)


def test_where_narrows_and_says_when_nothing_is_left() -> None:
    bank, keys = filled(demonstrations(["a", "b", "a"], [1, 1, 2]))
    query = [Query(OTHER, "?")]
    assert FirstSelector(where={"label": "a"}).select(bank.view(), query, None) == [[keys[0], keys[2]]]
    assert FirstSelector(where={"label": ["a", "b"], "group": 1}).select(bank.view(), query, None) == [keys[:2]]
    with pytest.raises(ShotsError, match=r"3 shots .* only 2 of the bank's 3 demonstrations may be shown: where="):
        FirstSelector(where={"label": "a"}).select(bank.view(), query, 3)
    with pytest.raises(ShotsError, match=r"no demonstration of 3 matches where"):
        FirstSelector(where={"label": "c"}).select(bank.view(), query, None)
    with pytest.raises(ShotsError, match=r"Did you mean 'label'"):
        FirstSelector(where={"labels": "a"}).select(bank.view(), query, None)


def test_what_is_looked_up_once_follows_the_bank() -> None:
    bank, keys = filled(demonstrations(["a", "b", "a"]))
    selector, query = FirstSelector(where={"label": "a"}, balance="label"), [Query(OTHER, "?")]
    assert selector.select(bank.view(), query, None) == [[keys[0], keys[2]]]
    bank.tag(keys[1], label="a")
    assert selector.select(bank.view(), query, None) == [keys]
    bank.remove(keys[0])
    assert selector.select(bank.view(), query, None) == [keys[1:]]
    another, others = filled(demonstrations(["b", "a"]))
    assert selector.select(another.view(), query, None) == [others[1:]]


def test_an_empty_bank_has_nothing_to_choose_from() -> None:
    bank = open_bank(CountingEncoder(), None)
    for name in ("first", "random", "reading"):
        assert get_selector(name).select(bank.view(), [Query(OTHER, "?")], None) == [[]]
        with pytest.raises(ShotsError, match="1 shots asked for, but the bank holds 0"):
            get_selector(name).select(bank.view(), [Query(OTHER, "?")], 1)


def test_a_bank_that_changes_meanwhile_is_looked_at_again() -> None:
    bank, keys = filled(demonstrations(["a"] * 5))

    class Meddler(FirstSelector):
        def scores(self, view: BankView, queries: Sequence[Query], candidates: np.ndarray) -> np.ndarray:
            if len(bank) == 5:
                bank.remove(keys[0])
            return super().scores(view, queries, candidates)

    (found,) = chosen(bank, Meddler(), [Query(OTHER, "?")], 2)
    assert [entry.key for entry in found] == keys[1:3]


def test_a_view_is_the_bank_of_one_moment() -> None:
    bank, keys = filled(demonstrations(["a"] * 5))
    before = bank.view()
    assert bank.view() is before
    bank.remove(keys[0])
    assert [entry.key for entry in before.entries] == keys
    assert [entry.key for entry in bank.view().entries] == keys[1:]
    few = bank.view().among(frozenset(keys[2:4]))
    assert FirstSelector().select(few, [Query(OTHER, "?")], None) == [keys[2:4]]
    with pytest.raises(ShotsError, match="3 shots asked for, but only 2 of the bank's 4"):
        FirstSelector().select(few, [Query(OTHER, "?")], 3)


def test_without_a_number_up_to_eight_are_shown() -> None:
    bank, keys = filled(demonstrations(["a"] * 12))
    asked = [Query(OTHER, "?")]
    assert DEFAULT_SHOTS == 8
    assert FirstSelector().select(bank.view(), asked, None) == [keys[:8]]
    assert FirstSelector(balance="id").select(bank.view(), asked, None) == [keys[:8]]
    assert FirstSelector().select(bank.view(), asked, 12) == [keys]
    bank.remove(*keys[:9])
    assert FirstSelector().select(bank.view(), asked, None) == [keys[9:]]


class ReadingEncoder(CountingEncoder):
    """Pools to a vector by rule, and counts the queries that are read."""

    queries = 0

    def pooled(self, reading: Any) -> np.ndarray:
        return self.vector(str(reading.image_position))

    def reading(self, item: Demonstration) -> Any:
        reading = super().reading(item)
        return type(reading)(
            reading.token_ids, reading.hidden, reading.embeddings, int(item.text), reading.answer_start
        )

    def pooled_queries(self, queries: Sequence[Query]) -> np.ndarray:
        self.queries += len(queries)
        return np.stack([self.vector(query.text) for query in queries])

    @staticmethod
    def vector(text: str) -> np.ndarray:
        """A large common part, as in an LLM, and little that differs."""
        generator = np.random.default_rng(sum(text.encode()) * 1000 + len(text))
        return (1000 + generator.standard_normal(16)).astype(np.float32)


def filled_for_reading(items: Sequence[Demonstration]) -> tuple[DemonstrationBank, list[str]]:
    bank = open_bank(ReadingEncoder(), None)
    return bank, bank.add(items)


@pytest.mark.parametrize("where", [None, {"label": "a"}])
def test_reading_equals_the_cosine_round_the_bank_s_mean(where: dict[str, str] | None) -> None:
    labels = ["a", "b"] * 15
    bank, keys = filled_for_reading(demonstrations(labels))
    queries = [Query(OTHER, text) for text in ("31", "77", "123")]
    vectors = np.stack([ReadingEncoder.vector(str(n)) for n in range(30)]).astype(np.float64)
    asked = np.stack([ReadingEncoder.vector(query.text) for query in queries]).astype(np.float64)
    centred, wanted = vectors - vectors.mean(0), asked - vectors.mean(0)
    cosines = wanted @ centred.T / np.outer(np.linalg.norm(wanted, axis=1), np.linalg.norm(centred, axis=1))
    pool = np.array([n for n in range(30) if where is None or labels[n] == "a"])
    selector = ReadingSelector(where=where)
    np.testing.assert_allclose(selector.scores(bank.view(), queries, pool), cosines[:, pool], atol=1e-6)
    expected = [[keys[n] for n in brute_force(row, pool, None, 5)] for row in cosines]
    assert selector.select(bank.view(), queries, 5) == expected
    bank.remove(keys[0])  # another mean
    centred, wanted = vectors[1:] - vectors[1:].mean(0), asked - vectors[1:].mean(0)
    cosines = wanted @ centred.T / np.outer(np.linalg.norm(wanted, axis=1), np.linalg.norm(centred, axis=1))
    np.testing.assert_allclose(selector.scores(bank.view(), queries, np.arange(29)), cosines, atol=1e-6)


def test_equal_readings_keep_the_order_of_addition() -> None:
    """All of them are the mean, up to rounding: there is no direction to compare."""
    bank = open_bank(ReadingEncoder(), None)
    keys = bank.add([Demonstration(PICTURE, "12", f"answer {n}") for n in range(7)])
    assert ReadingSelector().select(bank.view(), [Query(OTHER, "31")], None) == [keys[::-1]]


@pytest.fixture
def pipe(tiny: Callable[[str], Path]) -> AIMPipeline:
    return AIMPipeline.from_pretrained("llava", model=tiny("llava-1.5"), projector="residual", device="cpu")


def test_reading_uses_what_add_has_read(
    pipe: AIMPipeline, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [Demonstration(picture, "What is it?", f"a {n}") for n, picture in enumerate(pictures[:6])]
    keys = pipe.bank.add(items)
    asked = Query(pictures[7], "What is that?")
    # the states before the answer do not depend on it: a demonstration's are those of its image and text
    vectors = pipe.encoder.pooled_queries([Query(i.image, i.text) for i in items]).astype(np.float64)
    query = pipe.encoder.pooled_queries([asked])[0].astype(np.float64) - vectors.mean(0)
    centred = vectors - vectors.mean(0)
    cosines = centred @ query / np.linalg.norm(centred, axis=1) / np.linalg.norm(query)
    read: list[Query] = []
    original = type(pipe.encoder).pooled_queries
    monkeypatch.setattr(
        type(pipe.encoder), "pooled_queries", lambda self, queries: read.extend(queries) or original(self, queries)
    )
    monkeypatch.setattr(type(pipe.encoder), "stream", None)
    (chosen,) = get_selector("reading").select(pipe.bank.view(), [asked], 3)
    assert chosen == [keys[n] for n in brute_force(cosines, range(6), None, 3)]
    assert read == [asked]


def test_a_selector_of_one_s_own_chooses_in_the_pipeline(pipe: AIMPipeline, pictures: list[Image.Image]) -> None:
    class Longest(Selector):
        """The longest answers; does not call Selector.__init__."""

        def __init__(self, sign: int) -> None:
            self.sign = sign

        def scores(self, view: BankView, queries: Sequence[Query], candidates: np.ndarray) -> np.ndarray:
            answers = [view.demonstration(entry.key).answer for entry in view.entries]
            return np.array([[self.sign * len(answers[n]) for n in candidates]] * len(queries))

    items = [Demonstration(picture, "What?", "x" * (n + 1)) for n, picture in enumerate(pictures[:4])]
    pipe.bank.add(items)
    asked = Query(pictures[5], "What?")
    for selector, expected in ((Longest(1), items[2:]), (Longest(-1), items[1::-1])):
        chosen = pipe.generate([asked], shots=2, selector=selector, max_new_tokens=2)
        assert chosen == pipe.generate([asked], demonstrations=expected, max_new_tokens=2)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (np.zeros((1, 3)), r"Bad\.scores returned float64 of shape \(1, 3\); expected .* \(2, 3\)"),
        (np.full((2, 3), np.nan), "NaN"),
        (np.array([["a"] * 3] * 2), r"expected float32"),
    ],
)
def test_scores_that_cannot_be_ranked_are_explained(made: np.ndarray, message: str) -> None:
    class Bad(Selector):
        def scores(self, *_: object) -> np.ndarray:
            return made

    bank, _ = filled(demonstrations(["a"] * 3))
    with pytest.raises(InputError, match=message):
        Bad().select(bank.view(), [Query(OTHER, "?")] * 2, 1)


def test_names() -> None:
    with pytest.raises(InputError, match=r"no selector named 'rice'\. Did you mean 'rices'"):
        get_selector("rice")
    names = "agreed, first, mmices, random, reading, rices, text, or a Selector"
    with pytest.raises(InputError, match=f"Expected one of: {names}"):
        get_selector(3)  # type: ignore[arg-type]
    own = RandomSelector(7)
    assert get_selector(own) is own
    assert type(get_selector("first")) is FirstSelector
    assert get_selector("reading") is get_selector("reading"), "what it has looked up serves the next call"


def test_import_and_plain_names_load_no_clip() -> None:
    code = (
        "import sys, aim_sdk.bank; before = set(sys.modules); import aim_sdk.selection as s; s.get_selector('random');"
        "print({n.split('.')[0] for n in set(sys.modules) - before} - {'aim_sdk'})"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert found.strip() == "set()"
