"""Readings on disk come back bit for bit or not at all, whatever happens to their files."""

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from aim_backends.llava import LlavaBackend
from aim_sdk import Demonstration
from aim_sdk.files.records import encode
from aim_sdk.projectors import untrained
from aim_sdk.reading.cache import ReadingCache
from aim_sdk.reading.encoder import Encoder
from aim_sdk.types import Reading


@pytest.fixture(scope="module")
def encoder(tiny: Callable[[str], Path]) -> Encoder:
    backend = LlavaBackend.from_pretrained(str(tiny("llava-1.5")), device="cpu")
    return Encoder(backend, untrained("linear", backend.vocabulary), backend.default_format)


@pytest.fixture(scope="module")
def half(tiny: Callable[[str], Path]) -> Encoder:
    backend = LlavaBackend.from_pretrained(str(tiny("llava-1.5")), device="cpu", dtype="bfloat16")
    return Encoder(backend, untrained("linear", backend.vocabulary), backend.default_format)


def reading(seed: int, tokens: int = 3, width: int = 4, dtype: torch.dtype = torch.float32) -> Reading:
    """Any bits, those of infinities and NaNs included."""
    rng = torch.Generator().manual_seed(seed)
    raw = torch.randint(0, 256, (tokens, width * dtype.itemsize), dtype=torch.uint8, generator=rng)
    ids = torch.randint(0, 32000, (tokens,), generator=rng)
    return Reading(ids, raw.view(dtype), torch.zeros(tokens, 2), seed % 2, tokens - 1)


def bits(value: torch.Tensor) -> tuple[Any, ...]:
    return value.dtype, tuple(value.shape), value.contiguous().view(-1).view(torch.uint8).tolist()


def assert_equal(found: Reading | None, expected: Reading) -> None:
    assert found is not None
    assert bits(found.hidden) == bits(expected.hidden)
    assert bits(found.token_ids) == bits(expected.token_ids)
    assert (found.image_position, found.answer_start) == (expected.image_position, expected.answer_start)


def filled(folder: Path, encoder: Encoder, count: int, rank: int = 0) -> list[int]:
    """Keep readings ``rank * 100 + 0, 1, ...``; return the file's size before each and after the last."""
    own = folder / f"readings-{rank:03}.aim"
    with closing(ReadingCache(folder, encoder, limit=1e9, rank=rank)) as cache:
        sizes = [own.stat().st_size]
        for number in range(count):
            cache.add(str(rank * 100 + number), reading(rank * 100 + number).kept())
            sizes.append(own.stat().st_size)
    return sizes


def found(folder: Path, encoder: Encoder) -> list[str]:
    """The keys under 300 whose readings come back; those are as they were."""
    with closing(ReadingCache(folder, encoder, limit=1e9)) as cache:
        keys = [str(number) for number in range(300) if cache.get(str(number)) is not None]
        for key in keys:
            assert_equal(cache.get(key), reading(int(key)))
        return keys


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 999),
    tokens=st.integers(1, 9),
    width=st.integers(1, 9),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    key=st.text(max_size=12),
)
def test_readings_come_back_bit_for_bit(
    encoder: Encoder, tmp_path: Path, seed: int, tokens: int, width: int, dtype: torch.dtype, key: str
) -> None:
    given = reading(seed, tokens, width, dtype)
    name = f"{key}-{seed}-{tokens}-{width}-{dtype}"
    with closing(ReadingCache(tmp_path, encoder, limit=1e9)) as cache:
        cache.add(name, given.kept())
        assert_equal(cache.get(name), given)
        assert name in cache
    with closing(ReadingCache(tmp_path, encoder, limit=1e9)) as again:
        assert_equal(again.get(name), given)
        assert again.get(f"{name}?") is None


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_a_kept_reading_is_what_the_backbone_read(
    kind: str, encoder: Encoder, half: Encoder, tmp_path: Path, pictures: list[Image.Image]
) -> None:
    ours = encoder if kind == "float32" else half
    shown = [Demonstration(image, "What is it?", f"Number {place}.") for place, image in enumerate(pictures[:3])]
    readings = ours.read(shown)
    with closing(ReadingCache(tmp_path, ours, limit=1e9)) as cache:
        for place, item in enumerate(readings):
            cache.add(str(place), item.kept())
    with closing(ReadingCache(tmp_path, ours, limit=1e9)) as cache:
        for place, item in enumerate(readings):
            kept = cache.get(str(place))
            assert_equal(kept, item)
            assert kept is not None
            whole = ours.whole(kept)
            assert bits(whole.embeddings) == bits(item.embeddings)
            assert str(whole.hidden.dtype) == f"torch.{kind}"


def test_a_tail_that_is_torn_anywhere_costs_its_last_reading_only(encoder: Encoder, tmp_path: Path) -> None:
    *_, start, end = filled(tmp_path, encoder, 3)
    path = tmp_path / "readings-000.aim"
    data = path.read_bytes()
    assert len(data) == end
    for cut in range(start, end):
        path.write_bytes(data[:cut])
        assert found(tmp_path, encoder) == ["0", "1"], cut
        assert path.stat().st_size == start, "what is torn is cut off"
    path.write_bytes(data[: end - 1])
    assert filled(tmp_path, encoder, 3)[-1] == end
    assert path.read_bytes() == data


def test_a_torn_first_record_begins_anew(encoder: Encoder, tmp_path: Path) -> None:
    start, *_ = filled(tmp_path, encoder, 1)
    path = tmp_path / "readings-000.aim"
    data = path.read_bytes()
    for cut in range(start):
        path.write_bytes(data[:cut])
        assert found(tmp_path, encoder) == []
        assert path.read_bytes() == data[:start]


def test_a_flipped_byte_never_gives_another_reading(encoder: Encoder, tmp_path: Path) -> None:
    *_, start, end = filled(tmp_path, encoder, 3)
    path = tmp_path / "readings-000.aim"
    data = path.read_bytes()
    for place in range(0, end, 5):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
        keys = found(tmp_path, encoder)
        assert len(keys) < 3, place
        if place >= start:
            assert keys == ["0", "1"], place


def test_a_damaged_reading_is_kept_anew(encoder: Encoder, tmp_path: Path) -> None:
    filled(tmp_path, encoder, 3)
    path = tmp_path / "readings-000.aim"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with closing(ReadingCache(tmp_path, encoder, limit=1e9)) as cache:
        assert "2" in cache
        assert cache.get("2") is None
        assert "2" not in cache
        cache.add("2", reading(2).kept())
        assert_equal(cache.get("2"), reading(2))
    assert found(tmp_path, encoder) == ["0", "1", "2"], "the later of two records counts"


def test_what_is_no_cache_begins_anew(encoder: Encoder, tmp_path: Path) -> None:
    path = tmp_path / "readings-000.aim"
    for data in (b"", b"x" * 99, encode({"some": "thing"}), encode({"key": "0"}, {"hidden": torch.zeros(2)})):
        path.write_bytes(data)
        assert found(tmp_path, encoder) == []
        filled(tmp_path, encoder, 2)
        assert found(tmp_path, encoder) == ["0", "1"]


def test_another_dtype_layers_or_format_begin_anew(encoder: Encoder, half: Encoder, tmp_path: Path) -> None:
    backend = encoder.backend
    plain = encoder.prompt_format.plain("{image}{text} {answer}")
    others = [
        half,
        Encoder(backend, untrained("linear", backend.vocabulary, layers=(0, -1)), encoder.prompt_format),
        Encoder(backend, encoder.projector, plain),
    ]
    for other in others:
        filled(tmp_path, encoder, 2)
        assert found(tmp_path, encoder) == ["0", "1"]
        assert found(tmp_path, other) == []
        filled(tmp_path, other, 1)
        assert found(tmp_path, other) == ["0"]
        assert found(tmp_path, encoder) == []


def test_another_projector_of_the_same_layers_keeps_them(encoder: Encoder, tmp_path: Path) -> None:
    filled(tmp_path, encoder, 2)
    other = Encoder(encoder.backend, untrained("linear-norm", encoder.backend.vocabulary), encoder.prompt_format)
    assert found(tmp_path, other) == ["0", "1"]


def test_the_files_of_all_processes_are_read(encoder: Encoder, half: Encoder, tmp_path: Path) -> None:
    for rank in range(3):
        filled(tmp_path, encoder, 2, rank)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(before) == 3
    assert found(tmp_path, encoder) == ["0", "1", "100", "101", "200", "201"]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    with closing(ReadingCache(tmp_path, encoder, limit=1e9, rank=1)) as cache:
        cache.add("200", reading(200).kept())  # another process has it
        assert len(cache) == 6
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    with (tmp_path / "readings-002.aim").open("r+b") as file:
        file.truncate(len(before["readings-002.aim"]) - 3)
    assert found(tmp_path, encoder) == ["0", "1", "100", "101", "200"]
    assert (tmp_path / "readings-002.aim").stat().st_size == len(before["readings-002.aim"]) - 3, "it is not ours"
    filled(tmp_path, half, 1, rank=1)  # a file of another scope among them
    assert found(tmp_path, encoder) == ["0", "1", "200"]


def test_the_limit_is_kept_and_smaller_readings_still_fit(encoder: Encoder, tmp_path: Path) -> None:
    path = tmp_path / "readings-000.aim"
    limit = filled(tmp_path, encoder, 2)[-1] + 700
    with closing(ReadingCache(tmp_path, encoder, limit=limit)) as cache:
        cache.add("large", reading(5, tokens=30).kept())
        assert "large" not in cache
        cache.add("small", reading(6).kept())
        assert_equal(cache.get("small"), reading(6))
        for number in range(10, 30):
            cache.add(str(number), reading(number).kept())
        assert path.stat().st_size <= limit
        assert 3 <= len(cache) < 20
    with closing(ReadingCache(tmp_path, encoder, limit=0)) as cache:
        assert_equal(cache.get("1"), reading(1))
        cache.add("more", reading(3).kept())
        assert "more" not in cache


@pytest.mark.parametrize("place", ["error", "short"])
def test_a_full_disk_costs_readings_and_nothing_else(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    pwrite = os.pwrite

    def failing(handle: int, data: bytes, offset: int) -> int:
        if place == "error":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(handle, data[: len(data) // 2], offset)

    filled(tmp_path, encoder, 1)
    with closing(ReadingCache(tmp_path, encoder, limit=1e9)) as cache:
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", failing)
            cache.add("1", reading(1).kept())
            cache.add("2", reading(2).kept())
        assert len(cache) == 1
        assert_equal(cache.get("0"), reading(0))
        assert cache.get("1") is None
    assert found(tmp_path, encoder) == ["0"]
    filled(tmp_path, encoder, 3)
    assert found(tmp_path, encoder) == ["0", "1", "2"]


@pytest.fixture
def cache(encoder: Encoder, tmp_path: Path) -> Iterator[ReadingCache]:
    with closing(ReadingCache(tmp_path, encoder, limit=1e9)) as cache:
        yield cache


def test_threads_share_it(encoder: Encoder, tmp_path: Path, cache: ReadingCache) -> None:
    wrong: list[str] = []

    def work(first: int) -> None:
        for place in range(80):
            number = (first * 20 + place) % 100  # four threads add each of them
            cache.add(str(number), reading(number).kept())
            kept = cache.get(str(number))
            if kept is None or bits(kept.hidden) != bits(reading(number).hidden):
                wrong.append(str(number))

    threads = [threading.Thread(target=work, args=(first,)) for first in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(cache) == 100
    cache.close()
    once = (tmp_path / "readings-000.aim").stat().st_size
    assert len(found(tmp_path, encoder)) == 100
    sizes = filled(tmp_path / "other", encoder, 100)
    assert once == sizes[-1], "each was written once"


def test_what_comes_after_the_end_is_not_kept(encoder: Encoder, tmp_path: Path, cache: ReadingCache) -> None:
    cache.close()
    other = tmp_path / "other"
    with other.open("wb") as file:  # gets the number of the handle that is closed
        cache.add("0", reading(0).kept())
        assert os.fstat(file.fileno()).st_size == 0
    assert cache.get("0") is None
    assert found(tmp_path, encoder) == []
