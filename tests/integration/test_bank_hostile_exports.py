"""Exports that a stranger wrote, every checksum right: refused whole and by name, or harmless."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from aim_sdk import DemonstrationBank
from aim_sdk.bank.disk.maintenance import rebuild_index
from aim_sdk.errors import AIMError
from aim_sdk.files import records
from tests.bank_attacks import item, read
from tests.bank_mutations import encoded, mutations, pairs
from tests.banks import CountingEncoder, open_bank


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("export")
    with open_bank(CountingEncoder(), folder / "bank", keep_readings=True) as bank:
        bank.add([item("one", label="x"), item("two")])
        bank.export(folder / "bank.aim")
    return (folder / "bank.aim").read_bytes()


SHARES = [0.03, pytest.param(1.0, marks=pytest.mark.slow)]


@pytest.mark.parametrize("share", SHARES)
def test_a_malformed_export_is_refused_whole_or_harmless(tmp_path: Path, exported: bytes, share: float) -> None:
    dice, counts, own = random.Random(0), {"refused": 0, "taken": 0}, tmp_path / "own"
    with open_bank(CountingEncoder(), own) as bank:
        bank.add([item("own")])
    for what, given in mutations(pairs(exported)):
        if dice.random() > share or (data := encoded(given)) is None:
            continue
        (tmp_path / "bad.aim").write_bytes(data)
        made_of_it(tmp_path / "new", tmp_path / "bad.aim")
        target = tmp_path / "target"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(own, target)
        with open_bank(CountingEncoder(), target) as bank:
            try:
                bank.import_from(tmp_path / "bad.aim")
            except AIMError:
                counts["refused"] += 1
                assert bank.verify() == [], what
                assert list(read(target)) == ["own"], what
                continue
            counts["taken"] += 1
            assert bank.verify() == [], what
            assert len(read_quietly(bank)) == len(bank) in (1, 3), what
            bank.compact()
            assert rebuild_index(target) == [], what
    assert counts["refused"] > 20 * share / 0.03
    print(counts)


def made_of_it(folder: Path, export: Path) -> None:
    """A bank is made of a whole export, or none is made."""
    try:
        DemonstrationBank.import_file(export, into=folder).close()
    except AIMError:
        assert not folder.exists()
    else:
        shutil.rmtree(folder)


def read_quietly(bank: DemonstrationBank) -> list[str]:
    """All of it, but for vectors, which a stranger's export may lack."""
    for key in bank:
        bank._store.reading(key)
    bank._store.features("reading")
    return [entry.demonstration.answer for entry in bank.values() if len(entry.fused)]


def test_tensors_that_do_not_fit_are_refused(tmp_path: Path, exported: bytes) -> None:
    opening, (header, payload), *_ = pairs(exported)
    record = records.read_record(lambda at, size: records._framed(header, payload)[at : at + size], 0, "here")
    source = records._framed(header, payload)
    parts: dict[str, Any] = {
        name: records.read_part(lambda at, size: source[at : at + size], record, name, "here")
        for name in header["parts"]
    }
    plain = {name: value for name, value in header.items() if name != "parts"}
    tokens, key = len(parts["fused"]), header["key"]
    ones = torch.ones(tokens, dtype=torch.int64)

    def vectors(width: int, keys: list[str], name: str = "reading") -> bytes:
        return records.encode({"features": name, "keys": keys}, {"vectors": torch.ones(len(keys), width)})

    cases: dict[str, tuple[dict[str, Any], dict[str, Any], bytes]] = {
        "hidden too wide": ({}, {"hidden": torch.zeros(tokens, 99)}, b""),
        "hidden of one dimension": ({}, {"hidden": torch.zeros(tokens)}, b""),
        "hidden of three": ({}, {"hidden": torch.zeros(tokens, 2, 2)}, b""),
        "hidden NaN": ({}, {"hidden": torch.full((tokens, 4), float("nan"))}, b""),
        "image of numbers": ({}, {"image": torch.zeros(3)}, b""),
        "image of bfloat16": ({}, {"image": torch.zeros(3, dtype=torch.bfloat16)}, b""),
        "no tokens": ({}, {"fused": torch.zeros(0, 2), "hidden": torch.zeros(0, 4), "token_ids": ones[:0]}, b""),
        "fused integers": ({}, {"fused": torch.ones(tokens, 2, dtype=torch.int64)}, b""),
        "fused infinite": ({}, {"fused": torch.full((tokens, 2), float("inf"))}, b""),
        "fused too wide": ({}, {"fused": torch.ones(tokens, 3)}, b""),
        "negative token ids": ({}, {"token_ids": -ones}, b""),
        "place of the image": ({"image_position": 99}, {}, b""),
        "place of the answer": ({"answer_start": 2**70}, {}, b""),
        "position": ({"position": 2**62 - 1}, {}, b""),
        "another key": ({"key": "0" * 64}, {}, b""),
        "another answer": ({"answer": "other"}, {}, b""),
        "vectors of another width": ({}, {}, vectors(7, [key])),
        "vectors of no width": ({}, {}, vectors(0, [key])),
        "vectors of nobody": ({}, {}, vectors(4, ["0" * 64])),
        "vectors of two widths": ({}, {}, vectors(4, [key], "a") + vectors(7, [key], "a")),
        "a name that is not text": ({}, {}, vectors(4, [key], "\ud83d")),
        "a second opening": ({}, {}, records.encode({"bank": 1})),
        "a write": ({}, {}, records.encode({"remove": key})),
    }
    (tmp_path / "plain.aim").write_bytes(
        records._framed(*opening) + records.encode(plain, parts) + vectors(4, [key]) + records.encode({"end": 1})
    )
    with open_bank(CountingEncoder(), tmp_path / "bank", keep_readings=True) as bank:
        bank.add([item("own")])
        accepted = []
        for what, (fields, changed, more) in cases.items():
            data = records._framed(*opening) + records.encode({**plain, **fields}, {**parts, **changed}) + more
            (tmp_path / "bad.aim").write_bytes(data + records.encode({"end": 1}))
            try:
                bank.import_from(tmp_path / "bad.aim")
                accepted.append(what)
            except AIMError:
                pass
            assert accepted or list(read(tmp_path / "bank")) == ["own"], what
        assert accepted == []
        assert bank.verify() == []
        assert bank.import_from(tmp_path / "plain.aim") == 1
        assert len(bank.view().features("reading")) == 2
