"""The bank's rules, in memory and on disk, with a counting encoder in place of a backbone."""

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from aim_sdk import Demonstration, DemonstrationBank, Query
from aim_sdk.bank import DiskBank, NewBankWarning
from aim_sdk.errors import ArtifactNotFoundError, ImageError, InputError, UnknownEntryError
from tests.banks import CountingEncoder, fused_of, open_bank

Open = Callable[..., DemonstrationBank]


@pytest.fixture
def items(pictures: list[Image.Image]) -> list[Demonstration]:
    return [
        Demonstration(picture, "What?", f"answer {i}", {"label": "ab"[i % 2], "id": f"d{i}"})
        for i, picture in enumerate(pictures)
    ]


@pytest.fixture(params=["memory", "disk"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    path = tmp_path / "bank" if request.param == "disk" else None
    return lambda encoder=None, **options: open_bank(encoder or CountingEncoder(), path, **options)


def answers(bank: DemonstrationBank) -> list[str]:
    return [entry.demonstration.answer for entry in bank.values()]


def test_adding_again_reads_nothing(opened: Open, items: list[Demonstration]) -> None:
    encoder = CountingEncoder()
    bank = opened(encoder)
    keys = bank.add([*items[:3], items[0]])
    assert keys[0] == keys[3]
    assert bank.add(items[:3]) == keys[:3]
    assert encoder.read == ["answer 0", "answer 1", "answer 2"]
    assert answers(bank) == encoder.read
    assert len(bank) == 3
    assert bank.holds(items[0])
    assert not bank.holds(items[4])


def test_what_was_added_comes_back(opened: Open, items: list[Demonstration], tmp_path: Path) -> None:
    items[0].image.save(tmp_path / "a.png")
    given = [
        Demonstration(tmp_path / "a.png", "", "ünï\n"),
        Demonstration((tmp_path / "a.png").read_bytes(), "b", "c"),
        items[1],
    ]
    bank = opened()
    for key, item in zip(bank.add(given), given, strict=True):
        entry = bank[key]
        assert (entry.demonstration.text, entry.demonstration.answer) == (item.text, item.answer)
        assert dict(entry.demonstration.metadata) == dict(item.metadata)
        assert torch.equal(entry.fused.embeddings, fused_of(item))
        assert entry.fused.key == key
        assert bank.get(key) == entry
    assert bank.get("0" * 64) is None


@pytest.mark.parametrize("kind", ["PIL", "path", "bytes"])
def test_what_comes_back_is_known(opened: Open, items: list[Demonstration], kind: str, tmp_path: Path) -> None:
    """A query that is one of a bank's own demonstrations is not answered with itself, wherever the bank is."""
    items[0].image.save(tmp_path / "a.png")
    images = {"PIL": items[0].image, "path": tmp_path / "a.png", "bytes": (tmp_path / "a.png").read_bytes()}
    bank = opened()
    (key,) = bank.add([Demonstration(images[kind], "What?", "answer 0")])
    again = copy.deepcopy(bank[key].demonstration)
    assert bank.holds(again)
    assert bank.add([again]) == [key]
    assert bank.view().own(Query(again.image, again.text)) == [0]
    other = open_bank(CountingEncoder(), tmp_path / "other")
    assert other.add([again]) == [key]


def test_a_pil_image_that_was_drawn_on_is_not_the_one_that_was_read(items: list[Demonstration]) -> None:
    bank = open_bank(CountingEncoder(), None)
    image = items[0].image.copy()
    (key,) = bank.add([Demonstration(image, "What?", "a")])
    assert bank.check_images() == []
    image.paste((9, 200, 9), (0, 0, 8, 8))
    assert len(bank.check_images()) == 1
    with pytest.raises(ImageError, match="not the image that was read"):
        bank[key].checked()


def test_the_order_is_that_of_addition_whatever_the_batches(opened: Open, items: list[Demonstration]) -> None:
    class Backwards(CountingEncoder):
        def stream(self, demonstrations, **options):  # type: ignore[no-untyped-def]
            yield from reversed(list(super().stream(demonstrations, **options)))

    bank = opened(Backwards(batch=1))
    bank.add(items[4:])
    bank.add(items[:4])
    assert answers(bank) == [f"answer {i}" for i in (4, 5, 6, 7, 0, 1, 2, 3)]
    assert [entry.demonstration.answer for entry in list(bank.values())[:3]] == ["answer 4", "answer 5", "answer 6"]


def test_keys_depend_on_content_and_binding(opened: Open, items: list[Demonstration], tmp_path: Path) -> None:
    bank = opened()
    image = items[0].image
    assert bank.key(Demonstration(image, "What?", "answer 0", {"other": 1})) == bank.key(items[0])
    others = [
        items[0],
        items[1],
        Demonstration(image, "Who?", "answer 0"),
        Demonstration(image, "What?", "other"),
        Demonstration(image, "What?answer 0", "x"),
    ]
    assert len({bank.key(item) for item in others}) == 5
    for other in (CountingEncoder("other"), CountingEncoder(projector="q")):
        assert open_bank(other, None).key(items[0]) != bank.key(items[0])


def test_batches_before_a_failure_are_kept(opened: Open, items: list[Demonstration]) -> None:
    bank = opened(CountingEncoder(batch=2))
    with pytest.raises(InputError):
        bank.add([*items[:4], Demonstration(items[5].image, "", "bad")])
    assert answers(bank) == [f"answer {i}" for i in range(4)]


def test_bad_ones_are_left_out_where_somebody_listens(opened: Open, items: list[Demonstration], tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    broken = Demonstration(tmp_path / "broken.png", "", "x")
    missing = Demonstration(tmp_path / "missing.png", "", "x")
    heard: list[tuple[Demonstration, type[Exception]]] = []
    bank = opened()
    keys = bank.add(
        [items[0], broken, items[1], missing, items[2]], on_error=lambda item, error: heard.append((item, type(error)))
    )
    assert keys == [bank.key(item) for item in items[:3]]
    assert heard == [(missing, ImageError), (broken, ImageError)]
    with pytest.raises(ImageError, match=r"missing\.png: no such file"):
        bank.add([missing])


def test_first_and_remove(opened: Open, items: list[Demonstration]) -> None:
    bank = opened()
    keys = bank.add(items[:3])
    bank.remove(keys[0])
    assert [entry.demonstration.answer for entry in list(bank.values())[:2]] == ["answer 1", "answer 2"]
    assert (len(bank), list(bank)) == (2, keys[1:])
    with pytest.raises(UnknownEntryError) as raised:
        bank.remove(keys[1], keys[0])
    assert isinstance(raised.value, KeyError)
    assert len(bank) == 2, "all or none"
    with pytest.raises(UnknownEntryError, match="Did you mean"):
        bank[keys[1][:-1] + "x"]


def test_replace_keeps_the_place(opened: Open, items: list[Demonstration]) -> None:
    bank = opened()
    keys = bank.add(items[:3])
    new = bank.replace(keys[1], Demonstration(items[1].image, "What?", "better"))
    assert answers(bank) == ["answer 0", "better", "answer 2"]
    assert list(bank)[1] == new
    assert keys[1] not in bank
    with pytest.raises(InputError, match="already"):
        bank.replace(new, items[0])
    assert bank.replace(new, Demonstration(items[1].image, "What?", "better", {"seen": 1})) == new
    assert bank[new].demonstration.metadata == {"seen": 1}


def test_metadata_filters_tags_and_is_renewed(opened: Open, items: list[Demonstration]) -> None:
    bank = opened()
    keys = bank.add(items)
    assert bank.matching({"label": "b"}) == keys[1::2]
    assert bank.matching({"label": ["a", "b"], "id": ["d1", "d2", "d9"]}) == keys[1:3]
    with pytest.raises(InputError, match="no demonstration has a field 'nothing'"):
        bank.matching({"nothing": 1})
    bank.tag(keys[0], label="c", seen=True)
    bank.tag(keys[1], label=None)
    assert bank.matching({"label": "c"}) == keys[:1]
    assert dict(bank[keys[1]].demonstration.metadata) == {"id": "d1"}
    bank.add(
        [
            Demonstration(items[2].image, "What?", "answer 2", {"label": "z"}),
            Demonstration(items[3].image, "What?", "answer 3"),
        ]
    )
    assert dict(bank[keys[2]].demonstration.metadata) == {"label": "z"}
    assert dict(bank[keys[3]].demonstration.metadata) == dict(items[3].metadata), "none given, none changed"
    with pytest.raises(UnknownEntryError):
        bank.tag("nothing", label="x")


def test_features_are_aligned_computed_once_and_kept(opened: Open, items: list[Demonstration]) -> None:
    bank = opened()
    keys = bank.add(items[:5])
    asked: list[str] = []

    def compute(demonstrations: list[Demonstration]) -> np.ndarray:
        asked.extend(item.answer for item in demonstrations)
        return np.array([[float(item.answer[-1]), 1.0] for item in demonstrations])

    assert bank.view().features("toy", compute)[:, 0].tolist() == [0, 1, 2, 3, 4]
    bank.remove(keys[2])
    bank.add(items[5:7])
    assert bank.view().features("toy", compute)[:, 0].tolist() == [0, 1, 3, 4, 5, 6]
    assert asked == [f"answer {i}" for i in range(7)]
    assert bank.view().features("toy")[:, 0].tolist() == [0, 1, 3, 4, 5, 6]
    assert bank.view().features("reading").shape == (6, 4), "adding keeps the pooled readings"
    with pytest.raises(InputError, match="have no vectors 'other'"):
        bank.view().features("other")


def test_own_is_by_id_or_by_image_and_text(opened: Open, items: list[Demonstration]) -> None:
    bank = opened()
    bank.add(items)
    assert bank.view().own(Query(items[2].image, "What?")) == [2]
    assert bank.view().own(Query(items[2].image, "Who?")) == []
    assert bank.view().own(Query(items[2].image, "Who?", id="d5")) == [5]
    assert sorted(bank.view().own(Query(items[2].image, "What?", id="d5"))) == [2, 5]


def test_a_bank_is_a_mapping(opened: Open, items: list[Demonstration]) -> None:
    bank = opened()
    keys = bank.add(items)
    assert isinstance(bank, Mapping)
    assert list(bank) == list(bank.keys()) == [entry.key for entry in bank.values()] == keys
    assert [(key, entry.demonstration) for key, entry in bank.items()] == [
        (key, bank[key].demonstration) for key in keys
    ]
    assert keys[0] in bank
    assert "xyz" not in bank
    assert items[0] not in bank
    assert bank.get("xyz") is None
    assert bank.get(keys[0]) == bank[keys[0]]
    assert [bank[key].demonstration.answer for key in bank] == [item.answer for item in items]
    assert bank == bank
    assert bank != opened()
    assert len({bank, bank}) == 1


def test_iteration_survives_changes(opened: Open, items: list[Demonstration]) -> None:
    bank = opened()
    keys = bank.add(items[:4])
    seen = []
    for entry in bank.values():
        seen.append(entry.demonstration.answer)
        if len(seen) == 1:
            bank.remove(keys[2])
            bank.add(items[4:5])
    assert seen == ["answer 0", "answer 1", "answer 3"]


def test_wrong_things_are_refused(opened: Open, items: list[Demonstration]) -> None:
    bank = opened()
    with pytest.raises(InputError, match="got str"):
        bank.add(["a.jpg"])  # type: ignore[list-item]
    with pytest.raises(InputError, match="batch_tokens=0"):
        bank.add(items, batch_tokens=0)
    with pytest.raises(InputError, match="metadata 'a' is list"):
        Demonstration(items[0].image, "", "x", {"a": [1]})  # type: ignore[dict-item]


def test_any_iterator_is_read_as_it_is_needed(opened: Open, items: list[Demonstration]) -> None:
    bank = opened()
    keys = bank.add(item for item in items)
    assert keys == [bank.key(item) for item in items]


def test_the_care_of_files_is_a_bank_s_on_disk_alone(tmp_path: Path) -> None:
    in_memory, on_disk = open_bank(CountingEncoder(), None), open_bank(CountingEncoder(), tmp_path / "bank")
    assert isinstance(on_disk, DiskBank)
    assert isinstance(in_memory, DemonstrationBank)
    assert not isinstance(in_memory, DiskBank)
    assert [name for name in ("verify", "compact", "stats", "export", "import_from") if hasattr(in_memory, name)] == []


def test_nothing_is_made_where_it_was_not_asked_for(tmp_path: Path) -> None:
    encoder: Any = CountingEncoder()
    for options in ({}, {"encoder": encoder}):
        with pytest.raises(ArtifactNotFoundError, match=r"brids: no bank is there.*`aim-icl bank add` creates one"):
            DemonstrationBank.open(tmp_path / "brids", **options)
    with pytest.raises(ArtifactNotFoundError, match="no bank is there"):
        DemonstrationBank.check_there(tmp_path / "brids")
    with pytest.raises(InputError, match="create=True needs an encoder"):
        DemonstrationBank.open(tmp_path / "brids", create=True)
    assert not (tmp_path / "brids").exists()
    with pytest.warns(NewBankWarning, match="created an empty one"):
        DemonstrationBank.open(tmp_path / "brids", encoder=encoder, create=True).close()
    DemonstrationBank.check_there(tmp_path / "brids")
