"""Streams deal a corpus exactly, and go on from any place as if nothing had happened."""

import itertools
import json
import multiprocessing
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch.utils.data
from hypothesis import given, settings
from hypothesis import strategies as st

from aim_sdk.errors import InputError
from aim_sdk.training.corpora import Corpus, Cursor, DocumentStream, corpus, json_files
from aim_sdk.training.corpora.parquet import ParquetShard
from tests import corpora
from tests.corpora import captioned, folder_of, lines, llava, mmc4, obelics, opened, parquet, read, tar

SIZES = (7, 1, 0, 12, 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five files of MMC4, one empty; every fifth document is no JSON."""
    folder = tmp_path_factory.mktemp("stream")
    folder_of(folder / "images", 3)
    for shard, size in enumerate(SIZES):
        path = lines(folder / f"docs_shard_{shard}.jsonl", [mmc4(n) for n in range(size)])
        path.write_text("".join("{\n" if n % 5 == 4 else line for n, line in enumerate(path.open())))
    return folder


@pytest.fixture(scope="module")
def found(folder: Path) -> Corpus:
    return opened(folder, images=folder / "images")


def ids(stream: DocumentStream, count: int | None = None) -> list[str]:
    return [document.id for document, _ in itertools.islice(stream, count)]


GOOD = sorted(f"docs_shard_{shard}.jsonl:{n}" for shard, size in enumerate(SIZES) for n in range(size) if n % 5 != 4)


@settings(deadline=None, max_examples=25)
@given(streams=st.integers(1, 30), seed=st.integers(0, 9), epochs=st.integers(1, 3))
def test_streams_deal_the_corpus_exactly_and_alike_at_every_epoch(
    found: Corpus, streams: int, seed: int, epochs: int
) -> None:
    dealt, dropped = [], Counter[str]()
    for stream in range(streams):
        one = DocumentStream(found, stream=stream, streams=streams, seed=seed, epochs=epochs)
        by_epoch = [
            sorted(document.id for document, _ in part)
            for _, part in itertools.groupby(one, key=lambda pair: pair[1].epoch)
        ]
        assert by_epoch in ([], [by_epoch[0]] * epochs if by_epoch else [])
        dealt += [name for names in by_epoch for name in names]
        dropped += one.dropped
    assert sorted(dealt) == sorted(GOOD * epochs)
    assert dropped == {"bad json": epochs * sum(size // 5 for size in SIZES)}


@settings(deadline=None, max_examples=40)
@given(data=st.data(), streams=st.integers(1, 4), seed=st.integers(0, 3), shuffle=st.booleans())
def test_going_on_from_a_cursor_equals_no_interruption(
    folder: Path, data: st.DataObject, streams: int, seed: int, shuffle: bool
) -> None:
    arguments: dict[str, Any] = {"stream": data.draw(st.integers(0, streams - 1)), "streams": streams, "seed": seed}
    first = opened(folder, images=folder / "images", shuffle=shuffle)
    whole = DocumentStream(first, epochs=3, **arguments)
    everything = list(whole)
    place = data.draw(st.integers(0, len(everything) - 1))
    before = DocumentStream(first, epochs=3, **arguments)
    taken = list(itertools.islice(before, place + 1))
    cursor = json.loads(json.dumps(taken[-1][1]))
    after = DocumentStream(
        opened(folder, images=folder / "images", shuffle=shuffle), cursor=cursor, epochs=3, **arguments
    )
    assert taken + list(after) == everything
    assert before.dropped + after.dropped == whole.dropped


@pytest.mark.parametrize("kind", ["gz", "llava", "parquet", "tar"])
def test_every_kind_of_file_goes_on_from_every_place(tmp_path: Path, kind: str) -> None:
    images = folder_of(tmp_path / "images", 9)
    (images / "urls.json").write_text(json.dumps({f"http://a/{n}": f"{n}.png" for n in range(2)}))
    rows = [obelics("http://a/0", f"one {n}", "http://a/1", "two") for n in range(7)]
    for file in range(2):
        if kind == "gz":
            lines(tmp_path / f"{file}.jsonl.gz", [mmc4(n) for n in range(5)])
        elif kind == "llava":
            (tmp_path / f"{file}.json").write_text(json.dumps([llava(n) for n in range(9)]))
        elif kind == "parquet":
            parquet(tmp_path / f"{file}.parquet", rows)
        else:
            tar(tmp_path / f"{file}.tar", captioned(range(9)))
    everything = list(DocumentStream(opened(tmp_path, images=images, group=2), stream=1, streams=2, seed=4, epochs=2))
    assert len(everything) > 5
    for place, (_, cursor) in enumerate(everything):
        corpus = opened(tmp_path, images=images, group=2)
        after = DocumentStream(corpus, stream=1, streams=2, seed=4, cursor=cursor, epochs=2)
        assert list(after) == everything[place + 1 :]


def test_the_order_depends_on_seed_and_epoch_only(folder: Path, found: Corpus) -> None:
    orders = {seed: ids(DocumentStream(found, seed=seed, epochs=2)) for seed in range(4)}
    assert len({tuple(order[: len(GOOD)]) for order in orders.values()}) == 4
    assert orders[0][: len(GOOD)] != orders[0][len(GOOD) :]
    fresh = opened(folder, images=folder / "images")
    assert ids(DocumentStream(fresh, seed=2, cursor=Cursor(1, 0), epochs=2)) == orders[2][len(GOOD) :]
    shards_seen = [[name.partition(":")[0] for name in orders[seed][: len(GOOD)]] for seed in range(4)]
    assert len({tuple(dict.fromkeys(names)) for names in shards_seen}) > 1, "files are shuffled"
    for names in shards_seen:
        assert len([name for name, _ in itertools.groupby(names)]) == len(set(names)), "one file after the other"
    plain = opened(folder, images=folder / "images", shuffle=False)
    expected = [f"docs_shard_{s}.jsonl:{n}" for s, size in enumerate(SIZES) for n in range(size) if n % 5 != 4]
    assert ids(DocumentStream(plain, seed=1, epochs=2)) == expected * 2


def test_small_files_do_not_all_fall_to_the_first_streams(tmp_path: Path) -> None:
    for shard in range(40):
        lines(tmp_path / f"{shard:02}.jsonl", [mmc4(0), mmc4(1)])
    corpus = opened(tmp_path)
    streams = [DocumentStream(corpus, stream=s, streams=16, epochs=1) for s in range(16)]
    assert [list(stream) for stream in streams] == [[]] * 16
    counts = [stream.dropped["fewer than 2 pairs"] for stream in streams]  # one a document: no image is there
    assert sum(counts) == 80
    assert min(counts) >= 3


def test_a_stream_without_end_ends_where_nothing_is_usable(tmp_path: Path, found: Corpus) -> None:
    endless = DocumentStream(found, streams=3)
    assert len(ids(endless, 500)) == 500
    assert ids(DocumentStream(found, stream=25, streams=40, cursor=Cursor(2, 0))) == []
    stream = DocumentStream(opened(lines(tmp_path / "a.jsonl", [mmc4(0), mmc4(1)])))
    assert list(stream) == []
    assert stream.dropped == {"image missing": 6, "fewer than 2 pairs": 2}
    (tmp_path / "a.jsonl").write_text("")
    assert list(DocumentStream(opened(tmp_path, format="mmc4"))) == []


def test_going_on_reads_no_document_before_the_cursor(
    folder: Path, found: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    *_, (_, cursor), _ = DocumentStream(found, seed=5, epochs=1)
    reads: list[int] = []
    original = json_files.JsonShard.read
    monkeypatch.setattr(json_files.JsonShard, "read", lambda self, index: reads.append(index) or original(self, index))
    ids(DocumentStream(opened(folder, images=folder / "images"), seed=5, cursor=cursor, epochs=1))
    assert len(reads) == sum(SIZES) - cursor.position


def shards_opened(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The files that are opened from now on."""
    openings: list[object] = []
    original = json_files.JsonShard.__init__

    def init(self: json_files.JsonShard, *arguments: Any) -> None:
        openings.append(self)
        original(self, *arguments)

    monkeypatch.setattr(json_files.JsonShard, "__init__", init)
    return openings


def test_few_files_are_open_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "_OPEN", 2)
    found = opened(folder, images=folder / "images")
    openings, closed = shards_opened(monkeypatch), []
    original = json_files.JsonShard.close
    monkeypatch.setattr(json_files.JsonShard, "close", lambda self: closed.append(self) or original(self))
    ids(DocumentStream(found, epochs=1))
    assert len(openings) == len(SIZES)
    assert len(closed) == len(SIZES) - 2


def test_streams_pickle_without_open_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    openings = shards_opened(monkeypatch)
    found = opened(folder, images=folder / "images")
    stream = DocumentStream(found, stream=1, streams=2, seed=3, cursor=Cursor(1, 2), epochs=3)
    expected = ids(stream)
    before = len(openings)
    assert before
    data = pickle.dumps(stream)
    assert len(data) < 5000
    again = pickle.loads(data)  # noqa: S301
    assert len(openings) == before
    assert ids(again) == expected
    assert len(openings) > before, "its files were opened again"


class Dealt(torch.utils.data.IterableDataset):
    """As a trainer deals streams to workers."""

    def __init__(self, corpus: Corpus, streams: int) -> None:
        self.corpus, self.streams = corpus, streams

    def __iter__(self) -> Any:
        worker = torch.utils.data.get_worker_info()
        for stream in range(worker.id, self.streams, worker.num_workers):
            for document, cursor in DocumentStream(self.corpus, stream=stream, streams=self.streams, epochs=1):
                yield stream, document.id, tuple(cursor)


def as_it_is(item: Any) -> Any:
    return item


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("mmc4", "fork"),
        ("obelics", "fork"),
        ("webdataset", "fork"),
        pytest.param("mmc4", "spawn", marks=pytest.mark.slow),
    ],
)
def test_workers_read_what_one_process_reads(tmp_path: Path, folder: Path, method: str, kind: str) -> None:
    images = folder / "images"
    if kind == "mmc4":
        found = opened(folder, images=images)
    elif kind == "obelics":
        (tmp_path / "urls.json").write_text(json.dumps({f"http://a/{n}": f"{n}.png" for n in range(3)}))
        folder_of(tmp_path, 3)
        rows = [obelics("http://a/0", f"one {n}", "http://a/1", "two") for n in range(11)]
        found = opened(parquet(tmp_path / "a.parquet", rows), images=tmp_path)
    else:
        found = opened(tar(tmp_path / "a.tar", captioned(range(20))), group=2)
    expected = [
        (stream, document.id, tuple(cursor))
        for stream in range(4)
        for document, cursor in DocumentStream(found, stream=stream, streams=4, epochs=1)
    ]  # this process has files open when it forks
    assert len(expected) > 9
    context = multiprocessing.get_context(method)
    loader = torch.utils.data.DataLoader(
        Dealt(found, 4), batch_size=None, num_workers=2, multiprocessing_context=context, collate_fn=as_it_is
    )
    assert sorted(loader) == sorted(expected)


def test_rows_of_a_parquet_file_come_group_by_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row group is read whole, so jumping between groups would read each many times."""
    path = parquet(tmp_path / "a.parquet", [obelics("http://a/0", "one")] * 20, row_group_size=6)
    places: list[int] = []
    original = ParquetShard.read
    monkeypatch.setattr(ParquetShard, "read", lambda self, index: places.append(index) or original(self, index))
    list(DocumentStream(opened(path), seed=1, epochs=1))
    assert sorted(places) == list(range(20))
    assert places != list(range(20))
    assert [group for group, _ in itertools.groupby(place // 6 for place in places)] != [0, 1, 2, 3]
    assert len([group for group, _ in itertools.groupby(place // 6 for place in places)]) == 4


def test_damage_of_a_file_is_counted_once_by_all_streams_together(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", captioned(range(20)))
    path.write_bytes(path.read_bytes()[:-20_000])
    _, once = read(path, group=2)
    together = Counter[str]()
    for stream in range(5):
        one = DocumentStream(opened(path, group=2), stream=stream, streams=5, epochs=1)
        list(one)
        together += one.dropped
    assert once["tar truncated or broken"] == 1
    assert together == once


def test_impossible_streams_are_refused(found: Corpus) -> None:
    for arguments, message in (
        ({"stream": 2, "streams": 2}, "stream=2 of streams=2; expected 0 to 1"),
        ({"seed": -1}, "seed=-1, .*numbers of at least 0"),
        ({"cursor": Cursor(0, -1)}, "numbers of at least 0"),
    ):
        with pytest.raises(InputError, match=message):
            DocumentStream(found, **arguments)


def test_documents_are_read_one_at_a_time(tmp_path: Path) -> None:
    """The first document of a large tar does not wait for the others."""
    path = tar(tmp_path / "a.tar", captioned(range(40)))
    stream = iter(DocumentStream(opened(path, group=2)))
    document, cursor = next(stream)
    assert cursor == (0, 1)
    assert all(isinstance(pair.image, bytes) for pair in document.pairs)
    assert corpora.answers(document)
