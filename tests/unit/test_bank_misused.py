"""A bank, its entries and its view, used wrongly: a clear error, and nothing is changed."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from aim_sdk import Demonstration, DemonstrationBank, Query
from aim_sdk.errors import InputError, UnknownEntryError
from aim_sdk.selection import FirstSelector, RandomSelector, ReadingSelector
from tests.banks import CountingEncoder, open_bank

RED = Image.new("RGB", (2, 2), "red")


@pytest.fixture
def bank(tmp_path: Path) -> DemonstrationBank:
    bank = open_bank(CountingEncoder(), tmp_path / "bank")
    bank.add([Demonstration(RED, "What?", f"answer {n}", {"label": "ab"[n % 2], "id": n}) for n in range(4)])
    return bank


@pytest.mark.parametrize("key", [3, None, slice(0, 2), ["a"], b"a", Demonstration(RED, "", "x")])
def test_what_is_not_a_key(bank: DemonstrationBank, key: Any) -> None:
    for use in (bank.__getitem__, bank.remove, bank.tag, lambda key: bank.replace(key, Demonstration(RED, "", "y"))):
        with pytest.raises(UnknownEntryError, match=r"is not a key; expected a string, as in bank\.keys"):
            use(key)
    assert bank.get(key) is None
    assert key not in bank
    assert bank.verify() == []


def test_a_demonstration_is_held_and_a_key_is_in(bank: DemonstrationBank) -> None:
    for other in (next(iter(bank)), Query(RED, "What?"), "x"):
        with pytest.raises(InputError, match=r"expected a Demonstration\. Whether a key is here: `key in bank`"):
            bank.holds(other)  # type: ignore[arg-type]


@pytest.mark.parametrize("where", ["label=a", [("label", "a")], {"label": []}, {"label": None}, {3: 4}, {"label": len}])
def test_what_is_not_a_filter(bank: DemonstrationBank, where: Any) -> None:
    with pytest.raises(InputError, match="where"):
        bank.matching(where)
    with pytest.raises(InputError, match="where"):
        ReadingSelector(where=where)


def test_a_field_that_none_has(bank: DemonstrationBank) -> None:
    with pytest.raises(
        InputError, match=r"no demonstration has a field 'labl'\. Did you mean 'label'.* Fields: id, label"
    ):
        bank.matching({"labl": "a"})
    assert bank.matching({"label": "c"}) == []
    assert bank.matching({}) == list(bank)
    with pytest.raises(InputError, match="balance=3; expected the name of a metadata field"):
        RandomSelector(balance=3)  # type: ignore[arg-type]


def test_items_leave_out_what_is_removed_meanwhile(bank: DemonstrationBank) -> None:
    keys, seen = list(bank), []
    for key, entry in bank.items():
        seen.append(key)
        assert entry.key == key
        if len(seen) == 1:
            bank.remove(keys[2])
    assert seen == [keys[0], keys[1], keys[3]]


def test_a_metadata_field_may_have_any_name(bank: DemonstrationBank) -> None:
    key = next(iter(bank))
    bank.tag(key, **{"key": 1, "self": "x"})
    assert bank[key].demonstration.metadata["key"] == 1


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda items: np.full((len(items), 2), np.nan), "NaN or infinity"),
        (lambda items: np.ones(len(items)), r"float64 of shape \(4,\) for 4 demonstrations; expected .* \(4, dim\)"),
        (lambda items: np.ones((1, 2)), r"shape \(1, 2\) for 4"),
        (lambda items: np.ones((len(items), 0)), r"shape \(4, 0\)"),
        (lambda items: None, "expected numbers"),
        (lambda items: [["a"]] * len(items), "expected numbers"),
    ],
)
def test_vectors_that_are_not_ones(bank: DemonstrationBank, made: Callable[..., Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        bank.view().features("mine", made)
    with pytest.raises(InputError, match="4 of 4 demonstrations have no vectors 'mine'"):
        bank.view().features("mine")
    for name in (3, "", " ", None):
        with pytest.raises(InputError, match="expected a name"):
            bank.view().features(name, lambda items: np.ones((len(items), 2)))  # type: ignore[arg-type]
    assert bank.view().features("mine", lambda items: [[1, 2]] * len(items)).tolist() == [[1, 2]] * 4  # type: ignore[arg-type, return-value]
    assert bank.verify() == []


def test_a_view_cannot_be_changed(bank: DemonstrationBank) -> None:
    view = bank.view()
    with pytest.raises(ValueError, match="read-only"):
        view.features("reading")[:] = 0
    assert isinstance(view.entries, tuple)
    with pytest.raises(UnknownEntryError):
        view.demonstration("zz")
    with pytest.raises(InputError, match="expected a Query"):
        view.own("x")  # type: ignore[arg-type]
    assert repr(view) == "<BankView: 4 demonstrations>"


def test_what_cannot_leave_its_bank_says_so(bank: DemonstrationBank) -> None:
    for thing in (bank, bank.view(), next(iter(bank.values()))):
        with pytest.raises(InputError, match="cannot be copied or pickled"):
            pickle.dumps(thing)


def test_a_bank_whose_folder_is_gone_can_be_printed(bank: DemonstrationBank, tmp_path: Path) -> None:
    (tmp_path / "bank").rename(tmp_path / "moved")
    assert "cannot be read" in repr(bank) or "4 demonstrations" in repr(bank)


@pytest.mark.parametrize("path", [None, 3, b"bank", ["bank"]])
def test_what_is_not_a_path(bank: DemonstrationBank, path: Any) -> None:
    for use in (DemonstrationBank.open, lambda path: DemonstrationBank.import_file("x.aim", into=path), bank.export):  # type: ignore[attr-defined]
        with pytest.raises(InputError, match="is not the name of a file or folder"):
            use(path)
    with pytest.raises(InputError, match=r"encoder: str; expected a pipeline's \(pipe\.encoder\)"):
        DemonstrationBank.open("bank", encoder="pocket")  # type: ignore[arg-type]


def test_a_selector_looks_at_a_view(bank: DemonstrationBank) -> None:
    with pytest.raises(InputError, match=r"DiskBank is not a view of a bank; pass bank\.view\(\)"):
        FirstSelector().select(bank, [Query(RED)], 1)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="queries: Query; expected a list"):
        FirstSelector().select(bank.view(), Query(RED), 1)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="shots=-1"):
        FirstSelector().select(bank.view(), [Query(RED)], -1)
    assert repr(FirstSelector(where={"label": "a"})) == "FirstSelector(where={'label': 'a'}, balance=None)"
