"""Banks on disk: compaction, and a bank as one file."""

import errno
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from aim_sdk import Demonstration, DemonstrationBank
from aim_sdk.bank.disk import segments
from aim_sdk.bank.disk.maintenance import rebuild_index
from aim_sdk.errors import (
    ArtifactError,
    ArtifactNotFoundError,
    ArtifactWriteError,
    CorruptArtifactError,
    FingerprintError,
)
from tests.bank_attacks import item, put_index
from tests.banks import CountingEncoder, answers, open_bank, segment


def test_compaction_gives_back_what_was_removed(path: Path, bank: DemonstrationBank) -> None:
    bank.remove(*list(bank)[:6])
    before = bank.stats()
    assert before.reclaimable > before.bytes // 20
    expected = [(entry.demonstration.answer, entry.fused.embeddings) for entry in bank.values()]
    bank.compact()
    after = bank.stats()
    assert segment(path).stat().st_size < before.bytes
    assert after.reclaimable < 100
    assert len(list(path.glob("segment-*"))) == 1
    for (answer, fused), entry in zip(expected, bank.values(), strict=True):
        assert answer == entry.demonstration.answer
        assert torch.equal(fused, entry.fused.embeddings)
    assert after.demonstrations == 2
    assert after.fused_tokens == sum(len(fused) for _, fused in expected)


class Killed(BaseException):
    pass


def test_an_index_older_than_a_compaction_does_not_mix_its_positions_with_later_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The compaction was killed before it deleted the old segments, and the index was lost after a later write."""
    path, older = tmp_path / "bank", tmp_path / "older"
    with open_bank(CountingEncoder(), path) as bank:
        keys = bank.add([item(f"answer {number}") for number in range(5)])
        bank.remove(keys[1])
    shutil.copytree(path, older)
    with open_bank(CountingEncoder(), path) as bank:
        monkeypatch.setattr(segments.Segments, "delete", lambda *_: None)
        bank.compact()
        monkeypatch.undo()
        bank.add([item("later")])
        expected = answers(bank)
    put_index(older, path)
    with pytest.raises(CorruptArtifactError, match=r"older than a compaction.*\n.*--rebuild-index"):
        DemonstrationBank.open(path)
    assert rebuild_index(path) == []
    with DemonstrationBank.open(path) as bank:
        assert answers(bank) == expected == ["answer 0", "answer 2", "answer 3", "answer 4", "later"]


@pytest.mark.parametrize("step", range(8))
def test_a_crash_during_compaction_loses_nothing(
    path: Path, bank: DemonstrationBank, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Stopped before each thing that it asks of the system, with segments of a few records."""
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 1500)
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 1500)
    bank.remove(list(bank)[2])
    expected = answers(bank)
    left = step

    def counted(function: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return function(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(segments, "write_whole", counted(segments.write_whole))
        patch.setattr(os, "fsync", counted(os.fsync))
        patch.setattr(Path, "unlink", counted(Path.unlink))
        patch.setattr(os, "ftruncate", lambda *_: None)  # a killed process does not clean up
        with suppress(Killed):
            bank.compact()
    with DemonstrationBank.open(path) as again:
        assert answers(again) == expected
        assert again.verify() == []
        again.tag(next(iter(again)), label="x")
        assert again.verify() == []
    (path / "bank.sqlite").unlink()
    rebuild_index(path)
    with DemonstrationBank.open(path) as rebuilt:
        assert answers(rebuilt) == expected


def test_large_banks_have_several_segments(
    path: Path, items: list[Demonstration], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 1500)
    with open_bank(CountingEncoder(batch=1), path) as bank:
        bank.add(items)
        assert len(list(path.glob("segment-*"))) > 2
        assert bank.verify() == []
        bank.remove(next(iter(bank)))
        bank.compact()
        assert bank.verify() == []
        assert answers(bank) == [item.answer for item in items[1:]]
    assert rebuild_index(path) == []
    with DemonstrationBank.open(path) as again:
        assert answers(again) == [item.answer for item in items[1:]]


def test_an_export_comes_back_whole_or_not_at_all(path: Path, bank: DemonstrationBank, tmp_path: Path) -> None:
    file = tmp_path / "bank.aim"
    bank.tag(next(iter(bank)), label="x")
    size = bank.export(file)
    data = file.read_bytes()
    assert size == len(data)
    with DemonstrationBank.import_file(file, into=tmp_path / "new") as new:
        assert len(new) == 8
        assert new.import_from(file) == 0
        assert [(e.key, e.demonstration) for e in new.values()] == [(e.key, e.demonstration) for e in bank.values()]
        assert new.keeps_readings
        before = answers(new)
        for cut in (10, 50, size // 2, size - 1):
            (tmp_path / "cut.aim").write_bytes(data[:cut])
            with pytest.raises(CorruptArtifactError, match=r"cut\.aim"):
                new.import_from(tmp_path / "cut.aim")
        for flipped in range(30, size, 211):
            (tmp_path / "flipped.aim").write_bytes(data[:flipped] + bytes([data[flipped] ^ 4]) + data[flipped + 1 :])
            with pytest.raises(ArtifactError):
                new.import_from(tmp_path / "flipped.aim")
        assert answers(new) == before
    other = open_bank(CountingEncoder("other"), tmp_path / "other")
    with pytest.raises(FingerprintError, match=r"this exported bank was made with 'toy'.*has 'other'"):
        other.import_from(file)
    with pytest.raises(FingerprintError, match=r"this exported bank was made with 'toy'.*has 'other'"):
        DemonstrationBank.import_file(file, into=tmp_path / "newer", encoder=CountingEncoder("other"))
    assert not (tmp_path / "newer").exists()
    with pytest.raises(ArtifactNotFoundError, match="No such file"):
        other.import_from(tmp_path / "nothing.aim")
    with pytest.raises(ArtifactNotFoundError, match="a folder"):
        other.import_from(tmp_path)


def test_an_export_that_cannot_be_written_leaves_no_file(
    bank: DemonstrationBank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "out").mkdir()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ArtifactWriteError, match="No space left"):
        bank.export(tmp_path / "out" / "bank.aim")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_record_is_what_the_documentation_says(path: Path, bank: DemonstrationBank) -> None:
    data = segment(path).read_bytes()
    assert data[:4] == b"AIM\x01"
    length = int.from_bytes(data[4:8], "little")
    payload = int.from_bytes(data[8:16], "little")
    header = json.loads(data[20 : 20 + length])
    assert payload == 0
    assert header["bank"] == 2
    assert header["binding"]["projector_kind"] == "linear"
