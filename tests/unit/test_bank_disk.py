"""Banks on disk: what is refused and how, what damage does, and what other processes see."""

import errno
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from aim_sdk import Demonstration, DemonstrationBank, PromptFormat
from aim_sdk.bank.convert import convert
from aim_sdk.bank.disk import folder, segments
from aim_sdk.bank.disk.maintenance import rebuild_index
from aim_sdk.bank.disk.writes import framed
from aim_sdk.errors import (
    ArtifactError,
    ArtifactNotFoundError,
    ArtifactWriteError,
    BankLockedError,
    CorruptArtifactError,
    FingerprintError,
    InputError,
)
from tests.banks import CountingEncoder, fused_of, open_bank


@pytest.fixture
def items(pictures: list[Image.Image]) -> list[Demonstration]:
    return [Demonstration(picture, "What?", f"answer {i}", {"n": i}) for i, picture in enumerate(pictures)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a bank"


@pytest.fixture
def bank(path: Path, items: list[Demonstration]) -> Iterator[DemonstrationBank]:
    with open_bank(CountingEncoder(), path, keep_readings=True) as bank:
        bank.add(items)
        yield bank


def answers(bank: DemonstrationBank) -> list[str]:
    return [entry.demonstration.answer for entry in bank.values()]


def segment(path: Path) -> Path:
    return max(path.glob("segment-*.aim"))


# --- durability -------------------------------------------------------------------------------------------------------


def test_what_was_synced_is_all_that_is_needed(
    path: Path, items: list[Demonstration], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Power loss: only what an fsync has covered is left of the segments, and of the index's log any part."""
    synced: dict[str, int] = {}
    fsync = os.fsync

    def noted(handle: int) -> None:
        fsync(handle)
        synced[os.readlink(f"/proc/self/fd/{handle}")] = os.fstat(handle).st_size

    monkeypatch.setattr(os, "fsync", noted)
    bank = open_bank(CountingEncoder(batch=1), path)
    for number, item in enumerate(items):
        bank.add([item])
        lost = path.with_name(f"after power loss {number}")
        shutil.copytree(path, lost)
        os.truncate(segment(lost), synced[str(segment(path))])
        log = lost / "bank.sqlite-wal"
        os.truncate(log, log.stat().st_size * (number % 4) // 4)
        assert str(path) in synced, "the segment's name is durable, too"
        with DemonstrationBank.open(lost) as left:
            assert answers(left) == [item.answer for item in items[: number + 1]]
            assert left.verify() == []


def test_a_torn_tail_is_set_aside(path: Path, bank: DemonstrationBank, items: list[Demonstration]) -> None:
    torn, whole = segment(path), segment(path).stat().st_size
    with torn.open("ab") as file:
        file.write(b"".join(framed(4, [b"x" * 999]))[:333])
    with open_bank(CountingEncoder(), path) as again:
        assert len(again) == len(items)
        assert again.verify() == []
        again.tag(next(iter(again)), label="x")
        assert again.verify() == []
        assert torn.stat().st_size == whole + 333, "nothing is deleted or cut"
        assert segment(path) != torn, "and nothing is written after it"
        again.compact()
        assert again.verify() == []
        assert not torn.exists()


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("place", ["pwrite", "short", "fsync"])
def test_a_full_disk_loses_nothing_and_the_next_try_goes_on(
    path: Path,
    bank: DemonstrationBank,
    items: list[Demonstration],
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    error: int,
) -> None:
    new = [Demonstration(item.image, "Again?", item.answer) for item in items]
    pwrite = os.pwrite
    calls = 0

    def failing(*arguments: Any) -> int:
        nonlocal calls
        calls += 1
        if place == "short" and calls % 3:  # some bytes of each write, then none
            return pwrite(arguments[0], arguments[1][: max(1, len(arguments[1]) // 2)], arguments[2])
        raise OSError(error, os.strerror(error))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync" if place == "fsync" else "pwrite", failing)
        with pytest.raises(ArtifactWriteError, match=os.strerror(error)) as raised:
            bank.add(new)
        assert isinstance(raised.value, OSError)
        assert answers(bank) == [item.answer for item in items]
    assert bank.verify() == []
    bank.add(new)
    assert len(bank) == 2 * len(items)
    assert bank.verify() == []


def test_short_writes_are_finished(path: Path, items: list[Demonstration], monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda handle, data, offset: pwrite(handle, data[:100], offset))
    with open_bank(CountingEncoder(), path) as bank:
        bank.add(items)
        assert bank.verify() == []


def test_an_index_that_cannot_be_written_loses_nothing(bank: DemonstrationBank, items: list[Demonstration]) -> None:
    database = bank._store.log.index._db._db  # type: ignore[attr-defined]
    database.execute("PRAGMA max_page_count=1")  # SQLite's own "disk is full"
    many = [Demonstration(items[0].image, "Again?", f"{n}", {"x": "y" * 900}) for n in range(100)]
    with pytest.raises(ArtifactWriteError, match="full"):
        bank.add(many)
    kept = len(bank)
    database.execute("PRAGMA max_page_count=1000000")
    assert bank.verify() == []
    bank.add(many)
    assert len(bank) == len(items) + 100 > kept


# --- damage -----------------------------------------------------------------------------------------------------------


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


# --- what it belongs to -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoder", "difference", "command"),
    [
        (CountingEncoder(projector="q"), "projector_hash: p in the bank, q here", "projects the kept readings again"),
        (CountingEncoder("other"), "embedding_hash: toy in the bank, other here", "reads the demonstrations again"),
    ],
)
def test_another_backbone_or_projector_is_refused(
    path: Path, bank: DemonstrationBank, encoder: CountingEncoder, difference: str, command: str
) -> None:
    with pytest.raises(FingerprintError) as raised:
        open_bank(encoder, path)
    assert difference in str(raised.value)
    assert command in str(raised.value)
    assert f"aim-icl bank convert {path} NEW_FOLDER" in str(raised.value)


def test_another_prompt_format_is_refused(path: Path, bank: DemonstrationBank) -> None:
    encoder = CountingEncoder()
    encoder.binding = encoder.binding.model_copy(update={"prompt_format": PromptFormat.plain("{image}{text}{answer}")})
    with pytest.raises(FingerprintError, match="prompt_format"):
        open_bank(encoder, path)


def test_library_versions_do_not_matter(path: Path, bank: DemonstrationBank, items: list[Demonstration]) -> None:
    encoder = CountingEncoder()
    newer = encoder.binding.fingerprint.model_copy(update={"libraries": {"torch": "99"}, "weights_hash": None})
    encoder.binding = encoder.binding.model_copy(update={"fingerprint": newer})
    with open_bank(encoder, path) as again:
        assert again.add(items) == list(bank)
        assert encoder.read == []


def test_what_a_bank_does_not_keep_cannot_be_asked_for_later(tmp_path: Path) -> None:
    open_bank(CountingEncoder(), tmp_path / "b").close()
    with pytest.raises(InputError, match=r"made without keeping readings.*--keep-readings"):
        open_bank(CountingEncoder(), tmp_path / "b", keep_readings=True)


def test_without_a_backbone_it_is_read_but_not_added_to(
    path: Path, bank: DemonstrationBank, items: list[Demonstration]
) -> None:
    with DemonstrationBank.open(path) as opened:
        assert answers(opened) == answers(bank)
        with pytest.raises(InputError, match="opened without a backbone"):
            opened.add([Demonstration(items[0].image, "", "new")])


def test_places_that_hold_no_bank(tmp_path: Path, bank: DemonstrationBank) -> None:
    with pytest.raises(ArtifactNotFoundError, match=r"no bank is there\. Did you mean 'a bank'"):
        DemonstrationBank.open(tmp_path / "a bnak")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ArtifactNotFoundError, match="a bank is a folder"):
        DemonstrationBank.open(tmp_path / "file")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "photo.jpg").write_text("x")
    with pytest.raises(ArtifactNotFoundError, match="holds something else"):
        open_bank(CountingEncoder(), tmp_path / "full")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactNotFoundError, match="no bank is there"):
        DemonstrationBank.open(tmp_path / "empty")
    open_bank(CountingEncoder(), tmp_path / "empty").close()


# --- images and readings ----------------------------------------------------------------------------------------------


def test_images_come_back_as_a_model_sees_them(tmp_path: Path) -> None:
    image = Image.radial_gradient("L").resize((9, 7))
    image.save(tmp_path / "a.png")
    image.convert("CMYK").save(tmp_path / "b.jpg")
    data = (tmp_path / "b.jpg").read_bytes()
    given = [
        Demonstration(tmp_path / "a.png", "", "path"),
        Demonstration(data, "", "bytes"),
        Demonstration(image.convert("RGBA"), "", "PIL"),
    ]
    with open_bank(CountingEncoder(), tmp_path / "paths") as bank:
        by_path, by_bytes, by_pil = (bank[key].demonstration.image for key in bank.add(given))
    assert by_path == str(tmp_path / "a.png")
    assert by_bytes == data
    assert isinstance(by_pil, bytes)
    with open_bank(CountingEncoder(), tmp_path / "kept", keep_images=True) as bank:
        assert bank[bank.add(given)[0]].demonstration.image == (tmp_path / "a.png").read_bytes()


def test_kept_readings_are_projected_and_nothing_is_read(
    path: Path, bank: DemonstrationBank, tmp_path: Path, items: list[Demonstration]
) -> None:
    class Projecting(CountingEncoder):
        def project(self, readings: Any) -> Any:
            from aim_sdk import FusedTokens

            return [FusedTokens(reading.hidden[:, :2] * 2) for reading in readings]

    encoder = Projecting(projector="q")
    with open_bank(encoder, tmp_path / "new") as new, DemonstrationBank.open(path) as old:
        assert convert(old, new) is True
        assert encoder.read == []
        assert answers(new) == answers(bank)
        assert [dict(e.demonstration.metadata) for e in new.values()] == [dict(item.metadata) for item in items]
        for entry, item in zip(new.values(), items, strict=True):
            hidden = encoder.reading(item).hidden
            assert torch.equal(entry.fused.embeddings, hidden[:, :2] * 2)
        assert convert(old, new) is True, "again changes nothing"
        assert len(new) == len(items)
    again = Projecting("other")
    with open_bank(again, tmp_path / "other") as new, DemonstrationBank.open(path) as old:
        assert convert(old, new) is False, "another backbone reads"
        assert again.read == answers(bank) == answers(new)


# --- processes --------------------------------------------------------------------------------------------------------


def test_a_read_only_folder_is_read_and_not_written(
    path: Path, bank: DemonstrationBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the last commits still in the log beside the index, as after a kill."""
    expected = answers(bank)
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    before = {file.name: file.stat().st_mtime_ns for file in path.iterdir()}
    with DemonstrationBank.open(path) as opened:
        assert answers(opened) == expected
        assert opened.verify() == []
        with pytest.raises(ArtifactWriteError, match="read-only"):
            opened.remove(next(iter(opened)))
    assert {file.name: file.stat().st_mtime_ns for file in path.iterdir()} == before


def test_a_second_writer_waits_and_then_gives_up(
    path: Path, bank: DemonstrationBank, items: list[Demonstration], monkeypatch: pytest.MonkeyPatch
) -> None:
    holding, free = threading.Event(), threading.Event()
    other = folder.FileLock(path / folder.LOCK)

    def hold() -> None:
        with other:
            holding.set()
            free.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    holding.wait(30)
    try:
        monkeypatch.setattr(folder, "LOCK_SECONDS", 0.2)
        assert len(answers(bank)) == len(items), "reading works meanwhile"
        with pytest.raises(BankLockedError, match="another process has been writing") as raised:
            bank.remove(next(iter(bank)))
        assert isinstance(raised.value, TimeoutError)
        monkeypatch.setattr(folder, "LOCK_SECONDS", 20)
        threading.Timer(0.2, free.set).start()
        bank.remove(next(iter(bank)))
    finally:
        free.set()
        thread.join()


def test_a_reader_follows_the_writer(path: Path, bank: DemonstrationBank, items: list[Demonstration]) -> None:
    with DemonstrationBank.open(path) as reader:
        assert answers(reader) == answers(bank)
        listed = reader.view().entries
        assert reader.view().entries is listed
        bank.remove(next(iter(bank)))
        entry = reader[next(iter(bank))]
        bank.compact()
        assert torch.equal(entry.fused.embeddings, fused_of(items[1])), "moved by the compaction meanwhile"
        bank.add([Demonstration(items[0].image, "", "new")])
        assert answers(reader) == answers(bank) == [*(f"answer {i}" for i in range(1, 8)), "new"]
        assert len(reader.view().entries) == len(items)


def add_some(path: str, name: str) -> None:
    """What each of the two processes does."""
    image = Image.new("RGB", (2, 2))
    with open_bank(CountingEncoder(batch=2), Path(path)) as bank:
        for start in range(0, 40, 4):
            pairs = [(kind, number) for number in range(start, start + 4) for kind in ("both", name)]
            bank.add([Demonstration(image, "t", f"{kind} {number}") for kind, number in pairs])


def test_two_processes_add_and_one_reads(path: Path) -> None:
    program = f"from tests.unit.test_bank_disk import add_some; add_some({str(path)!r}, {{!r}})"
    writers = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", program.format(name)], stderr=subprocess.PIPE, text=True
        )
        for name in ("one", "two")
    ]
    seen: set[str] = set()
    while any(writer.poll() is None for writer in writers):
        if (path / "bank.sqlite").exists():
            try:
                reader = DemonstrationBank.open(path)
            except ArtifactNotFoundError:
                continue  # it is being made
            with reader:
                now = {entry.key for entry in reader.values() if entry.fused.embeddings.numel()}
                assert seen <= now
                seen = now
    assert [writer.communicate()[1] for writer in writers] == ["", ""]
    with DemonstrationBank.open(path) as bank:
        found = answers(bank)
        assert sorted(found) == sorted(f"{kind} {n}" for kind in ("both", "one", "two") for n in range(40))
        assert bank.verify() == []


# --- compaction and archive -------------------------------------------------------------------------------------------


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


# --- what strangers found ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["segment-00000001.aim", "bank.sqlite", "bank.lock", "new"])
def test_an_export_into_a_bank_s_folder_is_refused(path: Path, bank: DemonstrationBank, name: str) -> None:
    with pytest.raises(ArtifactWriteError, match="stands in a bank's folder"):
        bank.export(path / name)
    assert bank.verify() == []


def test_an_export_replaces_nothing_but_an_export(bank: DemonstrationBank, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    os.mkfifo(tmp_path / "pipe")
    for name, message in (("mine.txt", "no exported bank"), ("pipe", "a device or a pipe"), ("", "a folder")):
        with pytest.raises(ArtifactWriteError, match=message):
            bank.export(tmp_path / name)
    assert (tmp_path / "mine.txt").read_text() == "mine"
    assert bank.export(tmp_path / "b.aim") == bank.export(tmp_path / "b.aim")


def test_a_hole_behind_a_segment_is_named_and_not_searched(path: Path, bank: DemonstrationBank) -> None:
    os.truncate(segment(path), 1 << 40)
    with DemonstrationBank.open(path) as again:
        assert answers(again) == answers(bank)
        assert "no whole write" in again.verify()[0]


def test_an_index_that_knows_no_segment_is_damaged(path: Path, bank: DemonstrationBank) -> None:
    bank.close()
    with sqlite3.connect(path / "bank.sqlite") as database:
        database.execute("DELETE FROM segments")
    with pytest.raises(CorruptArtifactError, match=r"knows no segment.*\n.*--rebuild-index"):
        DemonstrationBank.open(path)
