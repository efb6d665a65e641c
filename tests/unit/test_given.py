"""What callers pass, in the ways in which they pass it; nothing is lost in between."""

import copy
import pickle
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from aim_sdk import AIMPipeline, Demonstration, PromptFormat, Query
from aim_sdk.backend.prefixes import PrefixCache
from aim_sdk.errors import InputError, ShotsError
from aim_sdk.injection.given import (
    candidates_of,
    first_shots,
    format_of,
    given_demonstrations,
    of_each_query,
    queries_of,
    shots_of,
)
from aim_sdk.support.numbers import whole_number

RED = Image.new("RGB", (24, 24), "red")
A, B = Demonstration(RED, "What?", "a"), Demonstration(RED, "What?", "b")

WAYS: dict[str, Callable[[list[Any]], Iterable[Any]]] = {
    "list": list,
    "tuple": tuple,
    "generator": lambda items: (item for item in items),
    "map": lambda items: map(copy.copy, items),
    "filter": lambda items: filter(None, items),
    "dict values": lambda items: dict(enumerate(items)).values(),
    "dict keys": lambda items: dict.fromkeys(items).keys(),
    "object array": lambda items: np.array([*items, None], object)[:-1],
}


class Series:
    """Like pandas': iterates its values; its index is another one."""

    def __init__(self, values: list[Any]) -> None:
        self.values, self.index = values, range(7, 7 + len(values))

    def __iter__(self) -> Any:
        return iter(self.values)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, label: int) -> Any:
        return self.values[self.index.index(label)]


WAYS["Series"] = Series


@pytest.mark.parametrize("way", WAYS)
def test_demonstrations_come_in_any_iterable(way: str) -> None:
    if way != "dict keys":
        assert of_each_query(given_demonstrations(WAYS[way]([A, B])), 2) == [[A, B], [A, B]]
    nested = [WAYS[way]([Demonstration("a.png", "", "a")]), WAYS[way]([Demonstration("b.png", "", "b")])]
    assert [[d.answer for d in items] for items in of_each_query(given_demonstrations(nested), 2)] == [["a"], ["b"]]


@pytest.mark.parametrize("way", WAYS)
def test_queries_and_choices_come_in_any_iterable(way: str) -> None:
    assert queries_of(WAYS[way]([Query("a.png"), Query("b.png")])) == [Query("a.png"), Query("b.png")]
    assert candidates_of(WAYS[way](["yes", "no"])) == ["yes", "no"]
    assert candidates_of(np.array(["yes", "no"])) == ["yes", "no"]


def test_one_stands_for_a_list() -> None:
    assert of_each_query(given_demonstrations(A), 2) == [[A], [A]]
    assert queries_of(Query("a.png")) == queries_of("a.png") == [Query("a.png")]
    assert queries_of(Path("a.png")) == [Query(Path("a.png"))]
    assert [q.text for q in queries_of(["a.png", ("b.png", "What?"), Query("c.png", "Who?")])] == ["", "What?", "Who?"]
    assert queries_of(RED)[0].image is RED


@pytest.mark.parametrize("used", [iter([]), (d for d in ()), map(str, []), filter(None, [])])
def test_an_iterator_that_is_used_up_is_refused(used: Any) -> None:
    with pytest.raises(InputError, match="gave nothing; was it consumed before"):
        of_each_query(given_demonstrations(used), 1)
    with pytest.raises(InputError, match=r"demonstrations of query 1: .*consumed before"):
        of_each_query(given_demonstrations([[A], iter([])]), 2)
    assert of_each_query(given_demonstrations([]), 2) == [[], []]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({Demonstration("a.png", "", "a")}, "a set, which has no order"),
        ({"a": A}, "dict; expected a list"),
        ("demos.jsonl", "str; expected a list"),
        (7, "int; expected a list"),
        ([A, "b.png"], "Demonstration objects and str"),
        ([["a.png"]], "demonstrations of query 0: str"),
        ([[A], [B]], "1 queries, but demonstrations for 2"),
    ],
)
def test_what_are_no_demonstrations(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        of_each_query(given_demonstrations(given), 1)


@pytest.mark.parametrize("given", [{"image": "a.png"}, [{"image": "a.png"}], [("a.png", "b", "c")], [7], 7, None])
def test_what_are_no_queries(given: Any) -> None:
    with pytest.raises(InputError, match="quer"):
        queries_of(given)


@pytest.mark.parametrize("given", ["yes", ["yes", 7], ["yes", " "], [], {"yes": 1}, 7])
def test_what_are_no_choices(given: Any) -> None:
    with pytest.raises(InputError, match="choices"):
        candidates_of(given)


@pytest.mark.parametrize("number", [3, np.int64(3), np.uint8(3), np.array(3)])
def test_whole_numbers_of_numpy_are_numbers(number: Any) -> None:
    assert type(whole_number("n", number, 1)) is int
    assert shots_of(number) == 3
    assert PrefixCache[int](np.int64(10)).info()["max_bytes"] == 10


@pytest.mark.parametrize("number", [True, np.True_, 3.0, np.float64(3), "3", -1, None, [3]])
def test_what_is_no_number_of_shots(number: Any) -> None:
    if number is None:
        assert shots_of(number) is None
        return
    with pytest.raises(InputError, match=r"shots=.*; expected a whole number of at least 0, or None"):
        shots_of(number)


def test_fewer_demonstrations_than_shots() -> None:
    assert first_shots([[A, B], [B]], 1) == [[A], [B]]
    assert first_shots([], 3) == []
    with pytest.raises(ShotsError, match="2 shots asked for, but only 1"):
        first_shots([[A, B], [B]], 2)


def test_a_prompt_format_may_be_a_template() -> None:
    template = "{image}Q: {text} A: {answer}\n"
    assert format_of(template) == PromptFormat.plain(template)
    assert format_of("chat") == PromptFormat.chat()
    assert format_of(None) is None
    for wrong in ("{image}", "plain", 7):
        with pytest.raises(InputError):
            format_of(wrong)  # type: ignore[arg-type]


def test_metadata_is_plain_and_copied() -> None:
    given = {"i": np.int32(1), "f": np.float32(0.5), "b": np.bool_(True), "s": np.str_("x"), "z": np.array(2)}
    made = Demonstration("a.png", "", "a", given).metadata
    assert made == {"i": 1, "f": 0.5, "b": True, "s": "x", "z": 2}
    assert [type(value) for value in made.values()][:3] == [int, float, bool]
    given["i"] = 7
    assert made["i"] == 1
    assert Demonstration("a.png", "", "a", None).metadata == {}  # type: ignore[arg-type]
    for wrong in ([1], "x", {"a": None}, {"a": np.array([1, 2])}, {"a": np.float64("nan")}):
        with pytest.raises(InputError, match="metadata"):
            Demonstration("a.png", "", "a", wrong)  # type: ignore[arg-type]


def test_the_id_of_a_query_is_compared_as_text() -> None:
    assert Query("a.png", id=5).id == Query("a.png", id=np.int64(5)).id == "5"  # type: ignore[arg-type]
    for wrong in (5.0, True, b"5"):
        with pytest.raises(InputError, match="id"):
            Query("a.png", id=wrong)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def pipe(tiny: Callable[[str], Path]) -> AIMPipeline:
    return AIMPipeline.from_pretrained("llava", model=tiny("llava-1.5"), projector="carrier", device="cpu")


@pytest.mark.parametrize("way", [way for way in WAYS if way != "dict keys"])
def test_what_is_shown_does_not_depend_on_how_it_is_given(pipe: AIMPipeline, way: str) -> None:
    query = Query(RED, "What?")
    (expected,) = pipe.generate([query], demonstrations=[A, B], max_new_tokens=2)
    (found,) = pipe.generate(query, demonstrations=WAYS[way]([A, B]), max_new_tokens=2)
    assert found == expected
    assert found.prompt_tokens > pipe.generate([query], mode="zero-shot", max_new_tokens=2)[0].prompt_tokens


@pytest.mark.parametrize("mode", ["aim", "text-only", "interleaved", "no-image", "nearest"])
def test_an_empty_bank_is_said(pipe: AIMPipeline, mode: Any) -> None:
    with pytest.raises(ShotsError, match=r"the bank holds no demonstrations, and mode '.*' shows some"):
        pipe.generate([Query(RED, "What?")], mode=mode)
    if mode != "nearest":
        assert pipe(RED, "What?", mode=mode, shots=0, max_new_tokens=1) == pipe(
            RED, "What?", mode="zero-shot", max_new_tokens=1
        )


def test_the_nearest_of_those_given_vote(pipe: AIMPipeline) -> None:
    pictures = {name: Image.new("RGB", (24, 24), name) for name in ("red", "blue", "white", "black")}
    shown = [Demonstration(image, "What?", name) for name, image in pictures.items()]
    asked = Query(Image.new("RGB", (24, 24), (250, 5, 5)), "What?")
    assert pipe(asked.image, "What?", mode="nearest", demonstrations=shown, shots=1) == "red"
    (shares,) = pipe.nearest(asked, demonstrations=iter(shown))
    assert sum(shares.values()) == pytest.approx(1)
    assert set(shares) == set(pictures)
    assert "".join(pipe.stream(asked.image, "What?", mode="nearest", demonstrations=shown, shots=1)) == "red"
    red, other = pipe.score(asked, ["red", "other"], mode="nearest", demonstrations=shown)
    assert np.exp(red) == pytest.approx(shares["red"])
    assert np.exp(other) < 1e-300
    (own,) = pipe.nearest(Query(pictures["red"], "What?"), demonstrations=shown)
    assert "red" not in own


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_pipeline_is_not_copied(pipe: AIMPipeline, copied: Callable[[Any], Any]) -> None:
    with pytest.raises(InputError, match="cannot be copied or pickled"):
        copied(pipe)
    with pytest.raises(InputError, match="cannot be copied or pickled"):
        copied(pipe.bank)


def test_what_a_pipeline_and_a_bank_say_of_themselves(pipe: AIMPipeline) -> None:
    assert repr(pipe) == (
        "AIMPipeline(backend='llava', model='llava-1.5', projector='carrier', prompt_format='chat', "
        "bank=<DemonstrationBank in memory: 0 demonstrations>)"
    )
