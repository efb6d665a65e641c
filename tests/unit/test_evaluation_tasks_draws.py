"""Demonstrations that a benchmark chooses itself, and items of two images."""

import json
import pickle
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from aim_sdk.errors import ImageError, ShotsError
from aim_sdk.evaluation.items import Dataset, Item
from aim_sdk.evaluation.tasks.pairs import SideBySide, joined
from aim_sdk.files.images import image_digest, load_image
from tests.evaluation_data import WRITERS, image, load, own_task

DRAWN = ("emoji-labels", "emoji-names", "vl-icl-matching-mi", "vl-icl-open-mi", "vl-icl-operator-induction")


def draw(dataset: Dataset, query: Item, shots: int, seed: int = 0) -> list[Item]:
    assert dataset.draw is not None
    return list(dataset.draw(query, shots, random.Random(seed)))


@pytest.fixture(scope="module", params=DRAWN)
def dataset(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    data = tmp_path_factory.mktemp("data")
    WRITERS.get(request.param, lambda _: None)(data)
    return load(request.param, data)


def read(name: str, data: Path) -> Dataset:
    WRITERS[name](data)
    return load(name, data)


def test_a_draw_depends_on_the_random_state_alone_and_fewer_are_the_first_of_more(dataset: Dataset) -> None:
    support = {item.id: item for item in dataset.support}
    for query in dataset.queries[:20]:
        four = draw(dataset, query, 4, seed=1)
        assert four == draw(dataset, query, 4, seed=1)
        for shots in range(4):
            fewer = draw(dataset, query, shots, seed=1)
            assert fewer == four[: len(fewer)]
        assert all(item.image == support[item.id].image and item.text == support[item.id].text for item in four)
        assert all(item.image != query.image for item in four)
    assert len({tuple(item.id for item in draw(dataset, dataset.queries[0], 4, seed)) for seed in range(20)}) > 1


def test_a_shot_of_open_mi_is_the_querys_class_and_another(tmp_path: Path) -> None:
    dataset = read("vl-icl-open-mi", tmp_path)
    orders, others = set(), set()
    for seed in range(40):
        query = dataset.queries[1]
        shown = draw(dataset, query, 5, seed)
        names = [item.answers[0] for item in shown]
        assert len(shown) == 10
        assert names == names[:2] * 5
        assert query.answers[0] in names[:2]
        assert names[0] != names[1]
        assert [str(item.image).rpartition("-")[2] for item in shown[:8:2]] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
        assert {item.text for item in shown} == {"This is a"}
        orders.add(names.index(query.answers[0]))
        others |= set(names) - {query.answers[0]}
    assert orders == {0, 1}
    assert others == {"dax1", "slation"}
    with pytest.raises(ShotsError, match="5 images per class"):
        draw(dataset, dataset.queries[0], 6)


def test_a_query_of_open_mi_has_demonstrations_of_its_own(tmp_path: Path) -> None:
    dataset = read("vl-icl-open-mi", tmp_path)
    shared = [item for item in dataset.support if str(item.image).endswith("shared.jpg")]
    assert len(shared) == len({item.answers for item in shared}) == 5
    names = {item.answers[0] for seed in range(20) for item in draw(dataset, dataset.queries[0], 1, seed)}
    assert names == {"dax0", "blicket", "slation"}


@pytest.mark.parametrize(("place", "answer"), [(0, lambda n: n + 1), (1, lambda n: n - 1), (2, lambda n: n)])
def test_an_operator_gives_its_demonstrations_their_answers(place: int, answer: object, tmp_path: Path) -> None:
    dataset = read("vl-icl-operator-induction", tmp_path)
    shown = draw(dataset, dataset.queries[place], 5)
    assert callable(answer)
    assert [item.answers for item in shown] == [(str(answer(int(item.id))),) for item in shown]
    assert sorted(item.id for item in shown) == list("01234")
    with pytest.raises(ShotsError, match="6 shots"):
        draw(dataset, dataset.queries[0], 6)


def test_a_shot_of_matching_is_a_pair_that_matches_and_one_that_does_not(tmp_path: Path) -> None:
    dataset = read("vl-icl-matching-mi", tmp_path)
    shown = draw(dataset, dataset.queries[0], 3)
    assert [item.answers[0] for item in shown] == ["yes", "no"] * 3
    assert [item.id.partition("-")[2] for item in shown] == ["same", "diff"] * 3
    assert len({item.id for item in shown}) == 6
    found = load_image(dataset.queries[0].image)
    assert found.size == (32 + 2 + 16, 32)


def test_clevr_and_textocr_leave_the_draw_to_the_protocol(tmp_path: Path) -> None:
    for name in ("vl-icl-clevr", "vl-icl-textocr"):
        dataset = read(name, tmp_path)
        assert dataset.draw is None
        assert [item.answers for item in dataset.queries] == [("0",), ("1",)]


def test_ids_that_are_not_unique_give_way_to_places(tmp_path: Path) -> None:
    WRITERS["vl-icl-clevr"](tmp_path)
    path = tmp_path / "vl-icl" / "clevr" / "support.json"
    path.write_text(json.dumps([entry | {"id": "same"} for entry in json.loads(path.read_text())]))
    assert [item.id for item in load("vl-icl-clevr", tmp_path).support] == list("012345")


@pytest.mark.parametrize("name", ["emoji-labels", "emoji-names"])
def test_words_are_bound_by_demonstrations_alone(name: str) -> None:
    dataset = load(name, Path())
    by_id = {item.id: item for item in dataset.support}
    group = "category" if name == "emoji-labels" else "concept"
    for query in dataset.queries:
        shown = draw(dataset, query, 8, seed=3)
        words = [item.answers[0] for item in shown]
        assert all(set(words[place : place + 2]) == set(words) for place in range(0, 8, 2))
        assert len(set(words)) == 2
        for item in shown:
            own = item.metadata[group] == query.metadata[group]
            assert own == (item.answers == query.answers)
            assert own == (item.metadata["category"] == query.metadata["category"])
            assert (item.metadata["concept"] == query.metadata["concept"]) == (own and group == "concept")
            assert item.metadata["style"] != query.metadata["style"]
            assert by_id[item.id].answers == (item.metadata[group],)
    assert len({query.answers for query in dataset.queries}) > 100


@given(st.tuples(*[st.integers(1, 40)] * 4))
def test_two_images_stand_whole_on_one_canvas(sizes: tuple[int, int, int, int]) -> None:
    left, right = Image.new("RGB", sizes[:2], "red"), Image.new("RGB", sizes[2:], "blue")
    canvas = joined(left, right)
    assert canvas.height == max(left.height, right.height)
    counts = {colour: count for count, colour in canvas.getcolors() or []}
    assert counts[(255, 0, 0)] == left.width * left.height
    assert counts[(0, 0, 255)] == right.width * right.height
    gap = canvas.crop((left.width, 0, canvas.width - right.width, canvas.height))
    assert gap.width >= 1
    assert gap.getcolors() == [(gap.width * gap.height, (255, 255, 255))]


def test_a_pair_is_joined_when_it_is_asked_for(tmp_path: Path) -> None:
    pair = SideBySide(str(image(tmp_path / "a.png")), str(tmp_path / "b.png"))
    with pytest.raises(ImageError, match=r"b\.png"):
        load_image(pair)
    image(tmp_path / "b.png", colour="blue")
    assert load_image(pair).size == (7, 2)
    assert pair.image_file() == pickle.loads(pickle.dumps(pair)).image_file()  # noqa: S301  # our own
    assert image_digest(pair) == image_digest(SideBySide(pair.left, pair.right))
    assert image_digest(pair) != image_digest(SideBySide(pair.right, pair.left))


def test_a_query_of_an_own_task_may_name_its_demonstrations(tmp_path: Path) -> None:
    for name in "abcd":
        image(tmp_path / f"{name}.png")
    support = [{"id": name, "image": f"{name}.png", "answer": name} for name in "abc"]
    queries = [{"image": "d.png", "answer": "x", "demonstrations": names} for names in (["c", "a"], ["b", "c", "a"])]
    dataset = load(own_task(tmp_path, queries, support), tmp_path)
    assert [[item.id for item in draw(dataset, query, 2, seed)] for seed in (0, 1) for query in dataset.queries] == [
        ["c", "a"],
        ["b", "c"],
    ] * 2
    with pytest.raises(ShotsError, match="3 shots asked for, but query '0' of task 'birds' names 2"):
        draw(dataset, dataset.queries[0], 3)
