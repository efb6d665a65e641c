"""What is wrong with a corpus is counted by reason; what can be read is read, and nothing stops a run."""

import gzip
import json
import os
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aim_sdk.errors import ArtifactWriteError, InputError
from aim_sdk.training.corpora import json_files, shards
from aim_sdk.training.corpora.drops import Drops
from tests.corpora import answers, captioned, folder_of, inside, lines, llava, mmc4, obelics, opened, parquet, read, tar


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(tmp_path_factory.mktemp("corpus") / "images", 9)


def cut(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def test_bad_lines_lose_only_themselves(tmp_path: Path, images: Path) -> None:
    good = json.dumps(mmc4(0))
    written = [
        b"\xff\xfe no text\n",
        good.encode(),
        b"\n   \n",
        b"[" * 100_000,
        b'{"text_list": "not a list", "image_info": []}',
        b'{"text_list": [], "image_info": []}',
        b"17",
        json.dumps(mmc4(1, similarity_matrix=[[0.3]])).encode(),
        json.dumps(mmc4(2, similarity_matrix=[[float("nan")] * 4] * 3)).encode(),
        json.dumps(mmc4(3, image_info=[17, {"image_name": 3}, *mmc4(3)["image_info"][2:]])).encode(),
        json.dumps(mmc4(5, similarity_matrix=[[10**400] * 4] * 3)).encode(),
        json.dumps(mmc4(4, text_list=["a", "\ud800", " ", "b"])).encode(),
        good.encode()[:-30],
    ]
    (tmp_path / "docs.jsonl").write_bytes(b"\n".join(written))
    documents, dropped = read(tmp_path, images=images)
    assert [len(document.pairs) for document in documents] == [3, 2]
    assert dropped == {
        "bad json": 3,
        "malformed document": 4,
        "document without text": 1,
        "no sentence for the image": 3,
        "malformed pair": 2,
        "text is not Unicode": 1,
        "fewer than 2 pairs": 2,
    }


def test_a_line_without_end_is_not_loaded(tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "MAX_RECORD", 1 << 20)
    lines(tmp_path / "docs.jsonl", [mmc4(0), mmc4(1, url="x" * (3 << 20)), mmc4(2)])
    documents, dropped = read(tmp_path, images=images)
    assert len(documents) == 2
    assert dropped == {"record larger than 1 MiB": 1}


@pytest.mark.parametrize(("suffix", "reason"), [(".gz", "gz"), (".zip", "zip")])
@pytest.mark.parametrize("altered", [False, True])
def test_packed_lines_that_are_cut_or_altered(
    tmp_path: Path, images: Path, suffix: str, reason: str, altered: bool
) -> None:
    path = lines(tmp_path / f"docs.jsonl{suffix}", [mmc4(n, url=os.urandom(3000).hex()) for n in range(100)])
    if altered:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0xFF  # what is unpacked after it is wrong, which is known at the end
        path.write_bytes(data)
    else:
        cut(path, 0.6)
    documents, dropped = read(path, images=images, format="mmc4")
    assert dropped.pop(f"{reason} truncated or broken") == 1
    assert dropped.pop("bad json", 0) <= (100 if altered else 2)
    assert not dropped or altered
    if suffix == ".gz":  # a cut zip has lost its directory
        assert 30 < len(documents) < 100 or altered


def test_an_encrypted_or_empty_zip(tmp_path: Path, images: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.jsonl.zip", "w"):
        pass
    data = bytearray(lines(tmp_path / "b.jsonl.zip", [mmc4(0)]).read_bytes())
    data[6] |= 1  # the flag of encryption, in the file's header and in the directory's
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "b.jsonl.zip").write_bytes(data)
    assert read(tmp_path, images=images, format="mmc4") == ([], {"zip truncated or broken": 2})


def test_no_room_to_unpack_is_an_error(tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def tell(self) -> int:
            return 0

        def write(self, data: bytes) -> None:
            raise OSError(28, "No space left on device")

        def close(self) -> None:
            pass

    lines(tmp_path / "docs.jsonl.gz", [mmc4(0)])
    corpus = opened(tmp_path, images=images)
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: Full())
    with pytest.raises(ArtifactWriteError, match=r"docs\.jsonl\.gz: unpacked to .*No space left.*TMPDIR"):
        corpus.size(0)


@pytest.mark.parametrize(
    "make", [captioned, lambda numbers: {f"{n}.json": json.dumps(inside(mmc4(n))) for n in numbers}]
)
def test_tars_cut_anywhere(tmp_path: Path, make: Callable[[range], dict[str, bytes | str]]) -> None:
    path = tar(tmp_path / "0.tar", make(range(10)))
    whole = path.read_bytes()
    format = opened(path).format.name
    complete, _ = read(path, format=format, group=1, min_pairs=1)
    for place in [*range(0, len(whole), 1777), 512 * 3, 512 * 3 + 1]:
        path.write_bytes(whole[:place])
        documents, dropped = read(path, format=format, group=1, min_pairs=1)
        if any(whole[place:]):
            assert dropped["tar truncated or broken"] == 1, place
        assert [answers(d) for d in documents[:-1]] == [answers(d) for d in complete[: max(0, len(documents) - 1)]]
    garbage = bytearray(whole)
    garbage[len(whole) // 2 // 512 * 512 :] = os.urandom(len(whole) - len(whole) // 2 // 512 * 512)
    path.write_bytes(garbage)
    documents, dropped = read(path, format=format, group=1, min_pairs=1)
    assert 0 < len(documents) < 10
    assert dropped["tar truncated or broken"] == 1


def test_links_devices_and_folders_in_a_tar_are_not_followed(tmp_path: Path) -> None:
    path = tar(tmp_path / "0.tar", captioned([0, 1]))
    odd = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE]
    with tarfile.open(path, "a") as archive:
        for number, kind in enumerate(odd):
            member = tarfile.TarInfo(f"{number + 3}.jpg")
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    (document,), dropped = read(tmp_path)
    assert len(document.pairs) == 2
    assert dropped == {"link or device in a tar": 4}


def test_names_in_a_tar_are_only_names(tmp_path: Path) -> None:
    content = captioned([0, 1])
    away = {
        f"/etc/{name}" if n < len(content) // 2 else f"../../{name}": data
        for n, (name, data) in enumerate(content.items())
    }
    tar(tmp_path / "0.tar", away)
    (document,), dropped = read(tmp_path)
    assert len(document.pairs) == 2
    assert (dropped, os.listdir(tmp_path)) == ({}, ["0.tar"])


@pytest.mark.parametrize("size", [-512, 1 << 40, shards.MAX_TAR_HEADER + 1])
@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.REGTYPE])
def test_hostile_sizes_in_a_tar(tmp_path: Path, size: int, kind: bytes) -> None:
    """Catches headers that are read whole, and sizes that lead backwards, round and round."""
    header = tarfile.TarInfo("x")
    header.type, header.size = kind, max(size, 0)
    block = bytearray(header.tobuf(tarfile.GNU_FORMAT))
    if size < 0:
        block[124:136] = b"\xff" * 4 + size.to_bytes(8, "big", signed=True)
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
    good = tar(tmp_path / "0.tar", captioned([0, 1])).read_bytes().rstrip(b"\0")
    good += bytes(-len(good) % 512)
    with (tmp_path / "0.tar").open("wb") as file:
        file.write(good + bytes(block))
        file.truncate(len(good) + (8 << 20))
    documents, dropped = read(tmp_path, format="webdataset")
    if kind == tarfile.REGTYPE and 0 < size < 1 << 40:
        assert (len(documents), dropped) == (1, {"sample without an image": 1})
    else:
        assert [len(document.pairs) for document in documents] == [2]
        assert sum(dropped.values()) == 1


def test_chained_headers_of_a_tar(tmp_path: Path) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 1
    block = header.tobuf(tarfile.GNU_FORMAT) + b"n" + bytes(511)
    (tmp_path / "0.tar").write_bytes(block * 5000 + bytes(1024))
    assert read(tmp_path, format="webdataset") == ([], {"tar truncated or broken": 1})


def test_a_sample_of_many_files_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "MAX_RECORD", 1 << 20)
    tar(tmp_path / "0.tar", {**{f"0.{n}": bytes(300_000) for n in range(9)}, **captioned([1, 2])})
    (document,), dropped = read(tmp_path)
    assert (len(document.pairs), dropped) == (2, {"record larger than 1 MiB": 1})


@pytest.mark.parametrize("suffix", [".gz", ".zip"])
def test_bombs_do_not_fill_the_disk(tmp_path: Path, images: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_files, "_FREE", 1 << 20)
    lines(tmp_path / f"docs.jsonl{suffix}", [mmc4(0), mmc4(1), mmc4(2, url="x" * (20 << 20)), mmc4(3)])
    documents, dropped = read(tmp_path, images=images, format="mmc4")
    (reason,) = (reason for reason in dropped if "unpacks to more than" in reason)
    assert len(documents) == 2
    assert dropped == {reason: 1, "bad json": 1}


def test_a_zip_with_a_long_list_or_an_unusual_method(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "a.jsonl.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a", json.dumps(mmc4(0)))
    assert read(tmp_path, images=images, format="mmc4") == ([], {"zip truncated or broken": 1})
    with zipfile.ZipFile(tmp_path / "a.jsonl.zip", "w") as archive:
        archive.writestr("a", json.dumps(mmc4(0)))
    data = (tmp_path / "a.jsonl.zip").read_bytes()
    place = data.index(b"PK\x01\x02")  # a file without a name
    nameless = data[:place] + data[place:].replace(b"\x01\x00\x00\x00", b"\x00\x00\x01\x00", 1)
    (tmp_path / "a.jsonl.zip").write_bytes(nameless)
    assert read(tmp_path, images=images, format="mmc4") == ([], {"zip truncated or broken": 1})
    lines(tmp_path / "a.jsonl.zip", [mmc4(0)])
    monkeypatch.setattr(shards, "MAX_DIRECTORY", 10)
    assert read(tmp_path, images=images, format="mmc4") == ([], {"zip truncated or broken": 1})


def test_pipes_and_devices_in_a_corpus_are_left_out(tmp_path: Path, images: Path) -> None:
    lines(tmp_path / "docs.jsonl", [mmc4(0)])
    os.mkfifo(tmp_path / "a.jsonl")
    (tmp_path / "zero.jsonl").symlink_to("/dev/zero")
    documents, dropped = read(tmp_path, images=images)
    assert (len(documents), dropped) == (1, {})
    for path in (tmp_path / "a.jsonl", Path("/dev/zero")):
        with pytest.raises(InputError, match="a pipe or a device"):
            read(path)


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zip", ".tar", ".jsonl", ".json"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(data=st.data())
def test_any_bytes_are_documents_or_counted(tmp_path: Path, images: Path, suffix: str, data: st.DataObject) -> None:
    """Catches what is raised raw by the packers' readers."""
    path, format = tmp_path / f"docs{suffix}", "mmc4"
    if suffix == ".tar":
        format = data.draw(st.sampled_from(["mmc4-tar", "webdataset"]))
        tar(path, captioned([0, 1]) | {"3.json": json.dumps(inside(mmc4(0)))})
    elif suffix == ".json":
        format = "llava"
        path.write_text(json.dumps([llava(n) for n in range(3)]))
    else:
        lines(path, [mmc4(n) for n in range(2)])
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(0, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=6))
        content = content or bytearray(b"x")
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    read(path, images=images, format=format, min_pairs=1)


def test_a_cut_list_keeps_its_first_samples(tmp_path: Path, images: Path) -> None:
    text = json.dumps([llava(n, turns=2) for n in range(9)], indent=2)
    path = tmp_path / "llava.json"
    for place in range(0, len(text), 97):
        path.write_text(text[:place])
        documents, dropped = read(path, images=images, format="llava", group=1)
        reason = "json list truncated or broken" if place else "json without a list"
        assert dropped == {reason: 1}
        assert [answers(d)[0] for d in documents] == [f"response {n}.0" for n in range(len(documents))]
    assert len(documents) == 8
    path.write_text(text.replace("},", "}}},", 9))
    assert read(path, images=images, format="llava")[1]["json list truncated or broken"] == 1
    path.write_text('{"images": []}')
    assert read(path, images=images, format="llava") == ([], {"json without a list": 1})
    path.write_text(" [ ] ")
    assert read(path, images=images, format="llava") == ([], {})


def test_samples_of_a_list_that_are_malformed(tmp_path: Path, images: Path) -> None:
    samples: list[Any] = [llava(0), 3, None, {"image": "1.png"}, llava(1, conversations=[{"from": "human"}]), llava(2)]
    (tmp_path / "llava.json").write_text(json.dumps(samples))
    (document,), dropped = read(tmp_path, images=images)
    assert answers(document) == ["response 0.0", "response 2.0"]
    assert dropped == {"malformed sample": 4}


def test_lists_larger_than_the_window(tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_files, "_BLOCK", 64)
    samples = [
        llava(n, conversations=[*llava(n)["conversations"], *llava(n, 3 * n)["conversations"]]) for n in range(9)
    ]
    (tmp_path / "llava.json").write_text("\ufeff" + json.dumps(samples, ensure_ascii=False).replace(", ", " ,\n\t"))
    documents, dropped = read(tmp_path, images=images, group=3, min_pairs=1, format="llava")
    (tmp_path / "llava.json").write_text("[1, 22, 333, 4444444444444444444]" + " " * 200)
    corpus = opened(tmp_path, format="llava", group=1)
    assert corpus.size(0) == 4
    assert corpus.format.open(corpus.files[0], corpus.config).read(3) == [4444444444444444444]
    assert dropped == {}
    assert [len(d.pairs) for d in documents] == [sum(1 + 3 * n for n in range(first, first + 3)) for first in (0, 3, 6)]


def test_parquet_that_is_cut_altered_or_other(tmp_path: Path, images: Path) -> None:
    rows = [obelics("http://a/0", f"text {n}" * 100, "http://a/1", "more") for n in range(9)]
    path = parquet(tmp_path / "a.parquet", rows)
    whole = path.read_bytes()
    cut(path, 0.5)
    assert read(path, images=images, format="obelics") == ([], {"parquet truncated or broken": 1})
    altered = bytearray(whole)
    altered[4:200] = bytes(196)
    path.write_bytes(altered)
    corpus, drops = opened(path, images=images, format="obelics"), Drops()
    found = [corpus.document(0, index, drops) for index in range(9)]
    assert corpus.size(0) == 9
    assert not any(found), "no image is there"
    assert drops.counts["parquet row group broken"] == 3
    assert drops.counts["image missing"] == 12
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"url": ["http://a"]}), path)
    assert read(path, images=images, format="obelics") == ([], {"parquet of other columns": 1})
    pyarrow.parquet.write_table(pyarrow.table({"images": [["a"], None], "texts": [["b"], ["c", None]]}), path)
    assert read(path, images=images, format="obelics") == ([], {"malformed document": 2})


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../../etc/passwd", "image name leaves the folder"),
        ("/etc/passwd", "image name leaves the folder"),
        ("sub/../../images2/0.png", "image name leaves the folder"),
        ("FOLDER/none.png", "image missing"),
        ("sub", "image missing"),
        ("0.png\0", "image missing"),
        ("\ud800.png", "image missing"),
        ("x" * 5000, "image missing"),
        ("empty.png", "image smaller than 400 bytes"),
    ],
)
def test_names_of_images_do_not_lead_out(tmp_path: Path, name: str, reason: str) -> None:
    folder = folder_of(tmp_path / "images", 3)
    folder_of(tmp_path / "images2", 1)
    name = name.replace("FOLDER", str(folder))
    (folder / "sub").mkdir()
    (folder / "empty.png").touch()
    lines(
        tmp_path / "m.jsonl",
        [
            mmc4(
                0,
                image_info=[mmc4(0)["image_info"][0] | {"image_name": name, "raw_url": None}],
                similarity_matrix=[[0.3] * 4],
            )
        ],
    )
    (tmp_path / "l.json").write_text(json.dumps([llava(0, image=name)]))
    lines(tmp_path / "j.jsonl", [{"pairs": [{"image": name, "answer": "x"}]}])
    for file, format in (("m.jsonl", "mmc4"), ("l.json", "llava"), ("j.jsonl", "jsonl")):
        assert read(tmp_path / file, images=folder, format=format) == ([], {reason: 1, "fewer than 2 pairs": 1}), format


def test_a_file_that_goes_away_or_cannot_be_read(tmp_path: Path, images: Path) -> None:
    for n in range(3):
        lines(tmp_path / f"{n}.jsonl", [mmc4(n), mmc4(n)])
    corpus, drops = opened(tmp_path, images=images), Drops()
    (tmp_path / "1.jsonl").unlink()
    assert corpus.document(0, 0, drops)
    (tmp_path / "0.jsonl").write_bytes(b"")
    assert corpus.document(0, 1, drops) is None
    assert corpus.size(1) == 0
    assert corpus.damage(1).reason == "file unreadable"
    assert drops.counts == {"file unreadable": 1}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("0.png"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ["text_list", "image_info", "similarity_matrix", "image", "conversations", "pairs"]
INNER = [
    "image_name",
    "raw_url",
    "image_base64",
    "matched_text_index",
    "matched_sim",
    "from",
    "value",
    "image",
    "answer",
]
documents = st.dictionaries(
    st.sampled_from(FIELDS), json_values | st.lists(st.dictionaries(st.sampled_from(INNER), json_values), max_size=3)
)


@pytest.mark.parametrize("format", ["mmc4", "llava", "jsonl"])
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=st.lists(documents | json_values, max_size=4), end=st.binary(max_size=20))
def test_any_json_is_counted(tmp_path: Path, images: Path, format: str, records: list[Any], end: bytes) -> None:
    path = tmp_path / "any.jsonl"
    path.write_bytes(b"".join(json.dumps(record).encode() + b"\n" for record in records) + end)
    found, dropped = read(path, images=images, format=format, group=1, min_similarity=-2)
    assert all(len(document.pairs) >= 2 for document in found)
    assert len(found) + sum(dropped.values()) >= len(records)


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(suffix=st.sampled_from([".jsonl", ".json", ".tar", ".jsonl.gz", ".jsonl.zip", ".parquet"]), data=st.binary())
def test_any_bytes_are_counted(tmp_path: Path, suffix: str, data: bytes) -> None:
    formats = {".json": "llava", ".tar": "webdataset", ".parquet": "obelics"}
    path = tmp_path / f"any{suffix}"
    path.write_bytes(data)
    documents, dropped = read(path, format=formats.get(suffix, "mmc4"))
    assert documents == []
    if suffix in (".tar", ".parquet", ".jsonl.zip"):
        assert sum(dropped.values()) == 1


def test_gzip_of_several_members(tmp_path: Path, images: Path) -> None:
    parts = [gzip.compress(json.dumps(mmc4(n)).encode() + b"\n") for n in range(3)]
    (tmp_path / "a.jsonl.gz").write_bytes(b"".join(parts))
    documents, dropped = read(tmp_path, images=images)
    assert len(documents) == 3
    assert dropped == {}


def test_a_parquet_file_that_unpacks_to_much_or_holds_other_text(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    one = pa.DictionaryArray.from_arrays(pa.array([0] * 2000, pa.int32()), pa.array(["x" * 10_000]))
    rows = pa.ListArray.from_arrays(pa.array([0, 2000], pa.int32()), one)
    pq.write_table(pa.table({"images": rows, "texts": rows}), tmp_path / "a.parquet", store_schema=False)
    assert (tmp_path / "a.parquet").stat().st_size < 100_000
    monkeypatch.setattr(shards, "MAX_ROW_GROUP", 1 << 20)
    documents, dropped = read(tmp_path, images=images, format="obelics")
    assert (len(documents), dropped) == (0, {"parquet row group larger than 1024 MiB": 1})
    path = parquet(tmp_path / "a.parquet", [obelics("http://a/0", "text QQQQ", "http://a/1", "more")])
    path.write_bytes(path.read_bytes().replace(b"QQQQ", b"\xff\xfe\xff\xfe"))
    documents, dropped = read(tmp_path, images=images, format="obelics")
    assert (len(documents), dropped) == (0, {"malformed document": 1})
