"""Banks on disk: every damaged byte is noticed, named, and costs as little as it can."""

import os
import sqlite3
from pathlib import Path

import pytest
import torch

from aim_sdk import Demonstration, DemonstrationBank
from aim_sdk.bank.disk.maintenance import rebuild_index
from aim_sdk.errors import (
    ArtifactError,
    ArtifactNotFoundError,
    ArtifactWriteError,
    CorruptArtifactError,
)
from tests.banks import CountingEncoder, answers, fused_of, open_bank, segment


def test_every_flipped_byte_of_a_segment_is_noticed(
    path: Path, bank: DemonstrationBank, items: list[Demonstration]
) -> None:
    data = segment(path).read_bytes()
    size = bank._store.log.index.segments()[1].size  # type: ignore[attr-defined]
    assert size == len(data)
    for place in range(0, size, 97):
        segment(path).write_bytes(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
        assert bank.verify(), place
    segment(path).write_bytes(data)
    assert bank.verify() == []


def test_a_flipped_byte_costs_one_demonstration(
    path: Path, bank: DemonstrationBank, items: list[Demonstration]
) -> None:
    keys = list(bank)
    damaged = bank._store.log.index.get(keys[3])  # type: ignore[attr-defined]
    with segment(path).open("r+b") as file:
        file.seek(damaged.offset + damaged.bytes - 5)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    with open_bank(CountingEncoder(), path) as again:
        (problem, consequence) = again.verify()
        assert "cut or altered" in problem
        assert keys[3] in consequence
        assert f"aim-icl bank remove {path} {keys[3][:12]}" in consequence
        for key, item in zip(keys, items, strict=True):
            if key != keys[3]:
                assert torch.equal(again[key].fused.embeddings, fused_of(item))
        with pytest.raises(CorruptArtifactError, match="cut or altered"):
            again.compact()
        again.remove(keys[3])
        assert again.add(items)[3] == keys[3]
        again.compact()
        assert again.verify() == []
        assert len(again) == len(items)


def test_every_flipped_byte_of_the_index_is_noticed_or_harmless(path: Path, bank: DemonstrationBank) -> None:
    """Never another answer, another place or another tensor; and the index comes back from the segments."""
    before = {entry.key: (entry.demonstration.answer, dict(entry.demonstration.metadata)) for entry in bank.values()}
    bank.close()
    index = path / "bank.sqlite"
    data = index.read_bytes()
    for place in range(0, len(data), 199):
        index.write_bytes(data[:place] + bytes([data[place] ^ 0x21]) + data[place + 1 :])
        try:
            with DemonstrationBank.open(path) as opened:
                found = {e.key: (e.demonstration.answer, dict(e.demonstration.metadata)) for e in opened.values()}
                noticed = bool(opened.verify())
        except ArtifactError:
            continue
        assert noticed or found == before, place
        assert all(before[key] == value for key, value in found.items()), place
    rebuild_index(path)
    with DemonstrationBank.open(path) as again:
        assert {e.key: (e.demonstration.answer, dict(e.demonstration.metadata)) for e in again.values()} == before
        assert again.verify() == []


@pytest.mark.parametrize("left", [0, 100, 5000])
def test_an_index_cut_in_half_is_named_with_the_command_that_mends_it(
    path: Path, bank: DemonstrationBank, left: int
) -> None:
    before = answers(bank)
    bank.close()
    index = path / "bank.sqlite"
    index.write_bytes(index.read_bytes()[:left])
    with pytest.raises(ArtifactError, match="--rebuild-index"):
        answers(DemonstrationBank.open(path))
    assert rebuild_index(path) == []
    with DemonstrationBank.open(path) as again:
        assert answers(again) == before


def test_a_missing_segment_or_index_is_named(path: Path, bank: DemonstrationBank) -> None:
    bank.close()
    (path / "bank.sqlite").rename(path / "kept")
    with pytest.raises(CorruptArtifactError, match=r"index \(bank\.sqlite\) is missing.*--rebuild-index"):
        DemonstrationBank.open(path)
    (path / "kept").rename(path / "bank.sqlite")
    segment(path).unlink()
    with DemonstrationBank.open(path) as opened:
        assert "is missing" in opened.verify()[0]
        with pytest.raises(CorruptArtifactError, match="is missing"):
            list(opened.values())
    with pytest.raises(ArtifactNotFoundError, match="no segment"):
        rebuild_index(path)


def test_a_newer_version_is_refused(path: Path, bank: DemonstrationBank) -> None:
    bank.close()
    with sqlite3.connect(path / "bank.sqlite") as database:
        database.execute("PRAGMA user_version=7")
    with pytest.raises(
        CorruptArtifactError, match=r"format version 7, but this aim-icl reads 2.*install a newer aim-icl"
    ):
        DemonstrationBank.open(path)


def test_a_closed_bank_says_so(bank: DemonstrationBank) -> None:
    bank.close()
    with pytest.raises(ArtifactError, match="closed"):
        list(bank)


@pytest.mark.parametrize("name", ["segment-00000001.aim", "bank.sqlite", "bank.lock", "new"])
def test_an_export_into_a_bank_s_folder_is_refused(path: Path, bank: DemonstrationBank, name: str) -> None:
    with pytest.raises(ArtifactWriteError, match="is inside a bank's folder"):
        bank.export(path / name)
    assert bank.verify() == []


def test_an_export_replaces_nothing_but_an_export(bank: DemonstrationBank, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    os.mkfifo(tmp_path / "pipe")
    for name, message in (("mine.txt", "not an exported bank"), ("pipe", "a device or a pipe"), ("", "a folder")):
        with pytest.raises(ArtifactWriteError, match=message):
            bank.export(tmp_path / name)
    assert (tmp_path / "mine.txt").read_text() == "mine"
    assert bank.export(tmp_path / "b.aim") == bank.export(tmp_path / "b.aim")


def test_a_hole_behind_a_segment_is_named_and_not_searched(path: Path, bank: DemonstrationBank) -> None:
    os.truncate(segment(path), 1 << 40)
    with DemonstrationBank.open(path) as again:
        assert answers(again) == answers(bank)
        assert "not a complete write" in again.verify()[0]


def test_an_index_that_knows_no_segment_is_damaged(path: Path, bank: DemonstrationBank) -> None:
    bank.close()
    with sqlite3.connect(path / "bank.sqlite") as database:
        database.execute("DELETE FROM segments")
    with pytest.raises(CorruptArtifactError, match=r"lists no segment.*\n.*--rebuild-index"):
        DemonstrationBank.open(path)
