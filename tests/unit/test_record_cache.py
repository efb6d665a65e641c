"""Records on disk by key come back bit for bit or not at all, whatever happens to their files."""

import errno
import os
import threading
from contextlib import closing
from pathlib import Path

import pytest
import torch

from aim_sdk.files.record_cache import RecordCache
from aim_sdk.files.records import encode

PARTS = ["values", "ids"]


def opened(folder: Path, scope: str = "a teacher", *, rank: int = 0, limit: float = 1e9) -> RecordCache:
    return RecordCache(folder, "answers", scope, limit=limit, rank=rank)


def tensors(seed: int) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {"values": torch.randn(3, 4, generator=rng).bfloat16(), "ids": torch.arange(seed, seed + 3)}


def filled(folder: Path, numbers: range, scope: str = "a teacher", *, rank: int = 0) -> list[int]:
    """Keep records; return the file's size before each and after the last."""
    own = folder / f"answers-{rank:03}.aim"
    with closing(opened(folder, scope, rank=rank)) as cache:
        sizes = [own.stat().st_size]
        for number in numbers:
            cache.add(str(number), {"rest": number / 7}, tensors(number))
            sizes.append(own.stat().st_size)
    return sizes


def found(folder: Path, scope: str = "a teacher") -> list[int]:
    """The numbers under 20 whose records come back; those are as they were."""
    with closing(opened(folder, scope, rank=9)) as cache:
        return [number for number in range(20) if is_right(cache, number)]


def is_right(cache: RecordCache, number: int) -> bool:
    if (kept := cache.get(str(number), PARTS)) is None:
        return False
    header, (values, ids) = kept
    expected = tensors(number)
    assert header["rest"] == number / 7
    assert torch.equal(values, expected["values"])
    assert torch.equal(ids, expected["ids"])
    return True


def test_records_come_back_bit_for_bit(tmp_path: Path) -> None:
    filled(tmp_path / "a" / "b", range(3))
    assert found(tmp_path / "a" / "b") == [0, 1, 2]
    with closing(opened(tmp_path / "a" / "b")) as cache:
        assert len(cache) == 3
        assert "1" in cache
        assert "7" not in cache
        assert cache.get("7", PARTS) is None
        kept = cache.get("1", ["ids"])
        assert kept is not None
        assert [part.tolist() for part in kept[1]] == [[1, 2, 3]]
        with pytest.raises(KeyError, match="logits"):
            cache.get("1", ["logits"])
        cache.add("1", {"rest": 0.0}, tensors(9))  # the first one counts
        assert is_right(cache, 1)


def test_a_torn_end_is_cut_off_and_written_again(tmp_path: Path) -> None:
    *_, start, end = filled(tmp_path, range(3))
    path = tmp_path / "answers-000.aim"
    data = path.read_bytes()
    for cut in (start + 1, (start + end) // 2, end - 1):
        path.write_bytes(data[:cut])
        assert filled(tmp_path, range(0))[-1] == start
        assert found(tmp_path) == [0, 1]
    assert filled(tmp_path, range(3))[-1] == end
    assert path.read_bytes() == data


def test_a_damaged_record_is_forgotten_and_kept_anew(tmp_path: Path) -> None:
    filled(tmp_path, range(3))
    path = tmp_path / "answers-000.aim"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with closing(opened(tmp_path)) as cache:
        assert "2" in cache
        assert cache.get("2", PARTS) is None
        assert "2" not in cache
        cache.add("2", {"rest": 2 / 7}, tensors(2))
        assert is_right(cache, 2)
    assert found(tmp_path) == [0, 1, 2]


def test_another_scope_or_another_file_begins_anew(tmp_path: Path) -> None:
    filled(tmp_path, range(3))
    assert found(tmp_path, "another teacher") == []
    filled(tmp_path, range(5, 6), "another teacher")
    assert found(tmp_path, "another teacher") == [5]
    assert found(tmp_path) == []
    for data in (b"", b"x" * 99, encode({"readings_of": "a teacher"}), encode({"key": "0"})):
        (tmp_path / "answers-000.aim").write_bytes(data)
        assert filled(tmp_path, range(0))[-1] == filled(tmp_path / "empty", range(0))[-1]
    with closing(RecordCache(tmp_path, "readings", "a teacher", limit=1e9)) as other:  # its own files, side by side
        assert len(other) == 0
    assert sorted(path.name for path in tmp_path.glob("*-000.aim")) == ["answers-000.aim", "readings-000.aim"]


def test_two_processes_write_their_own_files_and_read_both(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as first, closing(opened(tmp_path, rank=1)) as second:
        for number in range(4):
            (first, second)[number % 2].add(str(number), {"rest": number / 7}, tensors(number))
        assert [len(first), len(second)] == [2, 2], "each knows what was there when it began"
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert sorted(before) == ["answers-000.aim", "answers-001.aim"]
    with closing(opened(tmp_path, rank=1)) as again:
        assert [number for number in range(9) if is_right(again, number)] == [0, 1, 2, 3]
        again.add("0", {"rest": 0.0}, tensors(0))  # the other process has it
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_file_of_another_process_is_left_as_it_is(tmp_path: Path) -> None:
    *_, end = filled(tmp_path, range(3), rank=1)
    path = tmp_path / "answers-001.aim"
    os.truncate(path, end - 3)
    filled(tmp_path, range(5, 6))
    assert found(tmp_path) == [0, 1, 5]
    assert path.stat().st_size == end - 3


@pytest.mark.parametrize("how", ["error", "short"])
def test_on_a_full_disk_nothing_more_is_kept_and_nothing_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    pwrite = os.pwrite

    def failing(handle: int, data: bytes, offset: int) -> int:
        if how == "error":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(handle, data[: len(data) // 2], offset)

    filled(tmp_path, range(1))
    with closing(opened(tmp_path)) as cache:
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", failing)
            cache.add("1", {"rest": 1 / 7}, tensors(1))
        cache.add("2", {"rest": 2 / 7}, tensors(2))
        assert [number for number in range(3) if is_right(cache, number)] == [0]
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", failing)
        with closing(opened(tmp_path / "new")) as cache:  # not even its first record
            cache.add("1", {"rest": 1 / 7}, tensors(1))
            assert len(cache) == 0
    assert found(tmp_path) == [0]
    filled(tmp_path, range(3))
    assert found(tmp_path) == [0, 1, 2]


def test_a_disk_that_cannot_be_read_costs_its_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path, range(2))
    with closing(opened(tmp_path)) as cache:

        def failing(handle: int, size: int, offset: int) -> bytes:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        with monkeypatch.context() as patch:
            patch.setattr(os, "pread", failing)
            assert cache.get("0", PARTS) is None
        assert "0" not in cache
        assert is_right(cache, 1)


def test_the_limit_is_kept(tmp_path: Path) -> None:
    one, two, *_ = filled(tmp_path, range(2))
    with closing(opened(tmp_path / "small", limit=two + (two - one) // 2)) as cache:
        for number in range(5):
            cache.add(str(number), {"rest": number / 7}, tensors(number))
        assert [number for number in range(5) if is_right(cache, number)] == [0]


def test_threads_share_it_and_nothing_is_kept_after_its_end(tmp_path: Path) -> None:
    cache, wrong = opened(tmp_path), list[int]()

    def work(first: int) -> None:
        for place in range(20):
            number = (first * 5 + place) % 20
            cache.add(str(number), {"rest": number / 7}, tensors(number))
            if not is_right(cache, number):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    cache.close()
    cache.add("99", {"rest": 0.0}, tensors(0))
    assert len(cache) == 0
    assert cache.get("1", PARTS) is None
    assert (tmp_path / "answers-000.aim").stat().st_size == filled(tmp_path / "other", range(20))[-1]
    assert found(tmp_path) == list(range(20))
