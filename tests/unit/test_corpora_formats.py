"""Every format as it is published: recognised, paired, filtered."""

import hashlib
import itertools
import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aim_sdk.errors import ArtifactNotFoundError, InputError, MissingDependencyError
from aim_sdk.training.corpora import CorpusConfig, DocumentStream, open_corpus
from aim_sdk.training.corpora.registry import FORMATS, usable
from aim_sdk.training.corpora.similarity import match
from tests import corpora
from tests.corpora import answers, captioned, folder_of, inside, lines, llava, mmc4, obelics, opened, parquet, read, tar


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(tmp_path_factory.mktemp("corpus") / "images", 9)


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zip"])
def test_mmc4_as_published(tmp_path: Path, images: Path, suffix: str) -> None:
    for shard in range(2):
        lines(tmp_path / f"docs_no_face_shard_{shard}_v2{suffix}", [mmc4(10 * shard + n) for n in range(5)])
    documents, dropped = read(tmp_path, images=images)
    assert opened(tmp_path).format.name == "mmc4"
    assert dropped == {}
    assert [document.id for document in documents[4:6]] == [
        f"docs_no_face_shard_0_v2{suffix}:4",
        f"docs_no_face_shard_1_v2{suffix}:0",
    ]
    for number, document in zip([*range(5), *range(10, 15)], documents, strict=True):
        matrix = np.array(mmc4(number)["similarity_matrix"])
        best = max(itertools.permutations(range(4), 3), key=lambda places: matrix[range(3), places].sum())
        expected = sorted((sentence, image) for image, sentence in enumerate(best))
        assert answers(document) == [f"sentence {number}.{sentence}" for sentence, _ in expected]
        assert [pair.image for pair in document.pairs] == [str(images / f"{image}.png") for _, image in expected]
        assert [pair.similarity for pair in document.pairs] == [matrix[image, sentence] for sentence, image in expected]
        assert {pair.text for pair in document.pairs} == {""}


def test_mmc4_without_one_to_one_takes_the_matched_sentence(tmp_path: Path, images: Path) -> None:
    document = mmc4(0)
    for info in document["image_info"]:
        info["matched_text_index"], info["matched_sim"] = 2, 0.3
    lines(tmp_path / "docs.jsonl", [document])
    (found,), _ = read(tmp_path, images=images, one_to_one=False)
    assert answers(found) == ["sentence 0.2"] * 3
    del document["similarity_matrix"]
    document["image_info"][1]["matched_sim"] = 0.35
    lines(tmp_path / "docs.jsonl", [document])
    (found,), dropped = read(tmp_path, images=images, min_pairs=1)
    assert [pair.image for pair in found.pairs] == [str(images / "1.png")], "the most similar of three"
    assert dropped == {"no sentence for the image": 2}


def test_images_that_are_lost_leave_their_sentence_to_others(tmp_path: Path, images: Path) -> None:
    """The field matches what it has: images are looked for first."""
    document = mmc4(0, images=2, sentences=2, similarity_matrix=[[0.4, 0.39], [0.38, 0.1]])
    lines(tmp_path / "docs.jsonl", [document])
    (found,), _ = read(tmp_path, images=images, min_pairs=1)
    assert [Path(pair.image).name for pair in found.pairs] == ["1.png", "0.png"]
    document["image_info"][1]["image_name"] = "gone.png"
    lines(tmp_path / "docs.jsonl", [document])
    (found,), dropped = read(tmp_path, images=images, min_pairs=1)
    assert answers(found) == ["sentence 0.0"], "it was the other image's"
    assert dropped == {"image missing": 1}


@pytest.mark.parametrize("place", ["", "docs_shard_7_v3_images", "docs_shard_7_v3", "7"])
def test_mmc4_images_in_one_folder_or_one_a_shard(tmp_path: Path, place: str) -> None:
    folder_of(tmp_path / "images" / place, 3)
    lines(tmp_path / "docs_shard_7_v3.jsonl", [mmc4(0)])
    documents, _ = read(tmp_path, images=tmp_path / "images")
    assert len(documents[0].pairs) == 3


def test_the_recipe_of_the_field(tmp_path: Path, images: Path) -> None:
    (images / "small.png").write_bytes(corpora.picture(0)[: corpora.MINIMUM - 1])
    document = mmc4(0, images=8, sentences=12)
    document["similarity_matrix"] = (np.eye(8, 12) * 0.3 + 0.01).tolist()
    document["similarity_matrix"][3][3] = 0.2
    document["image_info"][5]["image_name"] = "small.png"
    lines(tmp_path / "docs.jsonl", [document, mmc4(1, images=1)])
    documents, dropped = read(tmp_path, images=images, max_images=4)
    (found,) = documents
    assert answers(found) == [f"sentence 0.{place}" for place in (0, 1, 2, 4)], "the first of six that are left"
    assert dropped == {
        "image smaller than 400 bytes": 1,
        "similarity below 0.24": 1,
        "more than 4 images": 2,
        "fewer than 2 pairs": 1,
    }
    assert len(read(tmp_path, images=images, similarity="none")[0][0].pairs) == 6
    assert read(tmp_path, images=images, similarity="none")[0][0].pairs[0].similarity is None
    assert CorpusConfig(path=tmp_path).min_image_bytes == 10240
    (images / "small.png").unlink()


def test_openflamingo_s_tars(tmp_path: Path) -> None:
    quoted = inside(mmc4(1))
    for info in quoted["image_info"]:  # the converter's first version
        info["image_base64"] = str(info["image_base64"].encode())
    lost = inside(mmc4(2))
    del lost["image_info"][0]["image_base64"]
    broken = inside(mmc4(3))
    broken["image_info"][1]["image_base64"] = "no base64!"
    files = {
        f"{n:032x}.json": json.dumps(document) for n, document in enumerate((inside(mmc4(0)), quoted, lost, broken))
    }
    tar(tmp_path / "000000000.tar", files)
    assert opened(tmp_path).format.name == "mmc4-tar"
    documents, dropped = read(tmp_path)
    assert [len(document.pairs) for document in documents] == [3, 3, 2, 2]
    assert {pair.image for pair in documents[0].pairs} == {corpora.picture(n) for n in range(3)}
    assert {pair.image for pair in documents[1].pairs} == {corpora.picture(n) for n in range(3)}
    assert dropped == {"image missing": 1, "base64 broken": 1}


def test_obelics(tmp_path: Path) -> None:
    urls = [f"http://example.org/{n}.png?size=1" for n in range(6)]
    row = obelics(urls[0], urls[1], "first", urls[2], " ", "second", urls[3], urls[4])
    parquet(tmp_path / "train-0.parquet", [row] * 7)
    images = tmp_path / "images"
    images.mkdir()
    for n, name in enumerate(
        [
            hashlib.sha256(urls[0].encode()).hexdigest(),
            hashlib.md5(urls[1].encode()).hexdigest() + ".png",
            hashlib.sha256(urls[2].encode()).hexdigest() + ".jpg",
            hashlib.sha256(urls[3].encode()).hexdigest() + ".webp",
        ]
    ):
        (images / name).write_bytes(corpora.picture(n))
    assert opened(tmp_path).format.name == "obelics"
    documents, dropped = read(tmp_path, images=images)
    assert len(documents) == 7
    assert [(Path(pair.image).stat().st_size, pair.answer) for pair in documents[0].pairs] == [
        (len(corpora.picture(1)), "first"),
        (len(corpora.picture(2)), "second"),
    ]
    assert dropped == {"image missing": 7, "no text for the image": 14}
    documents, dropped = read(tmp_path, images=images, one_to_one=False)
    assert answers(documents[0]) == ["first", "first", "second", "second"]
    assert dropped == {"image missing": 7}


@pytest.mark.parametrize("name", ["urls.json", "urls.csv"])
def test_a_map_from_addresses_to_files(tmp_path: Path, images: Path, name: str) -> None:
    folder = folder_of(tmp_path / "images" / "sub", 3).parent
    files = {"http://a/b": "sub/0.png", "http://a/c": "sub/1.png", "http://a/evil": "../../../etc/passwd"}
    if name.endswith("json"):
        (folder / name).write_text(json.dumps(files))
    else:
        (folder / name).write_text("url,file\n" + "".join(f"{url},{file}\n" for url, file in files.items()))
    parquet(tmp_path / "a.parquet", [obelics("http://a/b", "one", "http://a/c", "two", "http://a/evil", "three")])
    corpus = pickle.loads(pickle.dumps(opened(tmp_path, images=folder)))  # noqa: S301
    stream = DocumentStream(corpus, epochs=1)
    ((document, _),) = stream
    assert answers(document) == ["one", "two"]
    assert stream.dropped == {"image name leaves the folder": 1}
    (folder / name).write_text("no map")
    with pytest.raises(InputError, match=rf"{name}: cannot be used.*expected"):
        opened(tmp_path, images=folder)


def test_a_resolver_finds_images_by_address(tmp_path: Path, images: Path) -> None:
    parquet(tmp_path / "a.parquet", [obelics("http://a/0", "one", "http://a/1", "two", "http://a/2", "three")])
    found = {"http://a/0": corpora.picture(0), "http://a/1": images / "1.png"}
    stream = DocumentStream(open_corpus(CorpusConfig(path=tmp_path, min_image_bytes=400), resolve=found.get), epochs=1)
    ((document, _),) = stream
    assert [pair.image for pair in document.pairs] == [corpora.picture(0), str(images / "1.png")]
    assert stream.dropped == {"image missing": 1}


def test_llava(tmp_path: Path, images: Path) -> None:
    samples = [llava(n % 9, turns=2) for n in range(10)]
    del samples[3]["image"]
    samples[4]["image"] = ["1.png", "2.png"]
    samples[5]["conversations"].reverse()
    samples[6]["conversations"].insert(0, {"from": "system", "value": "Be brief."})
    (tmp_path / "llava.json").write_text(json.dumps(samples, indent=1, ensure_ascii=False))
    assert opened(tmp_path).format.name == "llava"
    documents, dropped = read(tmp_path, images=images, group=4)
    assert [len(document.pairs) for document in documents] == [6, 4, 4], "max_images does not cut groups"
    pair = documents[0].pairs[0]
    assert (pair.image, pair.text, pair.answer) == (str(images / "0.png"), "question 0.0", "response 0.0")
    assert documents[0].pairs[1].text == "question 1"
    assert len({pair.image for pair in documents[0].pairs}) == 3
    assert dropped == {"sample without an image": 1, "sample of several images": 1, "turns out of order": 1}
    lines(tmp_path / "llava.jsonl", samples)
    (tmp_path / "llava.json").unlink()
    assert [answers(d) for d in read(tmp_path, images=images, group=4)[0]] == [answers(d) for d in documents]


def test_webdataset(tmp_path: Path) -> None:
    files = captioned(range(5), similarity=0.31)
    files |= {"a/1.json": json.dumps({"caption": "from the json", "similarity": 0.1}), "a/1.webp": corpora.picture(7)}
    files |= {"alone.txt": "no image", "untold.png": corpora.picture(8), "odd.PNG": corpora.picture(8), "odd.txt": "é"}
    tar(tmp_path / "00000.tar", files)
    (tmp_path / "00000_stats.json").write_text("{}")
    parquet(tmp_path / "00000.parquet", [])
    assert opened(tmp_path / "00000.tar").format.name == "webdataset"
    documents, dropped = read(tmp_path, group=3, format="webdataset")
    assert [answers(document) for document in documents] == [
        ["caption 0", "caption 1", "caption 2"],
        ["caption 3", "caption 4"],
    ]
    assert documents[0].pairs[0].image == corpora.picture(0)
    assert documents[0].pairs[0].similarity == 0.31
    assert dropped == {
        "similarity below 0.24": 1,
        "sample without an image": 1,
        "no text": 1,
        "fewer than 2 pairs": 1,
    }
    assert answers(read(tmp_path, group=99, min_similarity=0, format="webdataset")[0][0])[5:] == ["from the json", "é"]


def test_jsonl(tmp_path: Path) -> None:
    folder_of(tmp_path / "images", 2)
    data = "data:image/png;base64," + inside(mmc4(0))["image_info"][2]["image_base64"]
    pairs = [
        {"image": "images/0.png", "text": "What?", "answer": "one"},
        {"image": data, "answer": " two\n", "similarity": 0.3},
        {"image": str(tmp_path / "images" / "1.png"), "answer": "three", "id": 3},
        {"image": data, "answer": "unlike", "similarity": 0.2},
        {"image": "http://example.org/a.png", "answer": "not downloaded"},
    ]
    lines(tmp_path / "mine.jsonl", [{"id": "a", "pairs": pairs}])
    assert opened(tmp_path).format.name == "jsonl"
    (document,), dropped = read(tmp_path)
    assert answers(document) == ["one", "two", "three"]
    assert document.pairs[1].image == corpora.picture(2)
    assert document.pairs[0].text == "What?"
    assert dropped == {"similarity below 0.24": 1, "image missing": 1}


@settings(deadline=None)
@given(
    matrix=st.integers(1, 5).flatmap(
        lambda width: st.lists(
            st.lists(st.one_of(st.floats(-1, 1), st.just(np.nan)), min_size=width, max_size=width),
            min_size=1,
            max_size=5,
        )
    )
)
def test_one_to_one_matching_equals_brute_force(matrix: list[list[float]]) -> None:
    similarity = np.array(matrix)
    found = match(similarity, one_to_one=True)
    assert len({image for image, _ in found}) == len({sentence for _, sentence in found}) == len(found)
    assert found == sorted(found, key=lambda pair: pair[1])
    images, sentences = similarity.shape
    best = (0, 0.0)
    places = [*range(sentences), *([None] * images)]
    for chosen in set(itertools.permutations(places, images)):
        pairs = [(i, s) for i, s in enumerate(chosen) if s is not None and np.isfinite(similarity[i, s])]
        best = max(best, (len(pairs), sum(similarity[pair] for pair in pairs)))
    assert len(found) == best[0]
    assert sum(similarity[pair] for pair in found) == pytest.approx(best[1], abs=1e-9)


def test_every_format_can_be_named() -> None:
    assert [(name, FORMATS[name].name) for name in FORMATS] == [(format.name, format.name) for format in usable()]
    with pytest.raises(ValueError, match=r"no format named 'mcm4'\. Did you mean 'mmc4'"):
        CorpusConfig(path=Path("anywhere"), format="mcm4")


def test_errors_say_what_to_do(tmp_path: Path, images: Path) -> None:
    with pytest.raises(ArtifactNotFoundError, match="nothing: no such file or folder"):
        opened(tmp_path / "nothing")
    with pytest.raises(InputError, match="an empty folder"):
        opened(tmp_path)
    (tmp_path / "notes.md").write_text("no corpus")
    with pytest.raises(InputError, match=r"(?s)no known format \(1 files, such as notes\.md\).*obelics: \.parquet"):
        opened(tmp_path)
    with pytest.raises(InputError, match=r"none of 1 files has the format 'mmc4-tar', whose file names end with \.tar"):
        opened(tmp_path, format="mmc4-tar")
    lines(tmp_path / "a.jsonl", [mmc4(0)])
    with pytest.raises(ArtifactNotFoundError, match="images: no such folder of images"):
        opened(tmp_path, images=tmp_path / "images")
    tar(tmp_path / "b.tar", captioned([0]))
    with pytest.raises(InputError, match=r"holds files of mmc4 and webdataset\. Pass one of them, or format='mmc4'"):
        opened(tmp_path)
    assert opened(tmp_path, format="webdataset").format.name == "webdataset"


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet(tmp_path / "a.parquet", [obelics("http://a/b", "text")])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r'pyarrow.*\nNext: .* -m pip install "aim-icl\[train\]"'):
        opened(tmp_path)
    lines(tmp_path / "a.jsonl", [mmc4(0)])
    assert opened(tmp_path).format.name == "mmc4", "what is not needed may be missing"
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(MissingDependencyError, match="scipy"):
        opened(tmp_path)
    assert opened(tmp_path, one_to_one=False)
