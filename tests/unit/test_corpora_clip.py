"""Similarities that the corpus lacks, by a tiny random CLIP."""

import itertools
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from aim_sdk.clip.encoder import ClipEncoder
from aim_sdk.errors import ModelNotFoundError
from aim_sdk.training.corpora import Corpus, DocumentStream
from tests.corpora import answers, captioned, folder_of, lines, llava, mmc4, opened, read, tar
from tests.unit.test_clip import ANIMALS, save_folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_folder(tmp_path_factory.mktemp("clip") / "zero", 0)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = folder_of(tmp_path_factory.mktemp("corpus"), 4)
    (folder / "torn.png").write_bytes((folder / "0.png").read_bytes()[:500])
    return folder


@pytest.fixture(scope="module")
def cosines(clip: Path, images: Path) -> np.ndarray:
    encoder = ClipEncoder(clip, device="cpu")
    return encoder.images([images / f"{n}.png" for n in range(3)]) @ encoder.texts(ANIMALS[:5]).T


def by_clip(path: Path, images: Path | None, clip: Path, **settings: object) -> Corpus:
    given = {"images": images, "similarity": "clip", "clip_model": str(clip), "min_similarity": -1} | settings
    return opened(path, shuffle=False, **given)


def test_mmc4_is_matched_by_clip(tmp_path: Path, images: Path, clip: Path, cosines: np.ndarray) -> None:
    document = mmc4(0, images=3, sentences=5, text_list=ANIMALS[:5])
    document["image_info"].insert(1, document["image_info"][0] | {"image_name": "torn.png"})
    lines(tmp_path / "docs.jsonl", [document, mmc4(1, text_list=[" "])])
    best = max(itertools.permutations(range(5), 3), key=lambda places: cosines[range(3), places].sum())
    corpus = pickle.loads(pickle.dumps(by_clip(tmp_path, images, clip)))  # noqa: S301
    stream = DocumentStream(corpus, epochs=1)
    ((found, _),) = stream
    expected = sorted((sentence, image) for image, sentence in enumerate(best))
    assert answers(found) == [ANIMALS[sentence] for sentence, _ in expected]
    assert [pair.similarity for pair in found.pairs] == pytest.approx([cosines[i, s] for s, i in expected], abs=1e-5)
    assert stream.dropped == {"image undecodable": 1, "document without text": 1}


def test_pairs_are_filtered_by_clip(tmp_path: Path, images: Path, clip: Path, cosines: np.ndarray) -> None:
    samples = [llava(n, conversations=[{"from": "human", "value": "<image>"}, {"from": "gpt", "value": ANIMALS[n]}])
               for n in range(3)]  # fmt: skip
    (tmp_path / "llava.json").write_text(json.dumps([*samples, llava(3, image="torn.png")]))
    border = sorted(cosines.diagonal())[0] + 1e-4
    stream = DocumentStream(by_clip(tmp_path, images, clip, min_similarity=border), epochs=1)
    ((found, _),) = stream
    kept = [n for n in range(3) if cosines[n, n] >= border]
    assert answers(found) == [ANIMALS[n] for n in kept]
    assert [pair.similarity for pair in found.pairs] == pytest.approx([cosines[n, n] for n in kept], abs=1e-5)
    assert stream.dropped == {"image undecodable": 1, f"similarity below {border:g}": 1}


def test_clip_stands_above_what_the_corpus_says(tmp_path: Path, clip: Path) -> None:
    tar(tmp_path / "a.tar", captioned(range(3), similarity=5.0))
    assert {pair.similarity for pair in read(tmp_path, group=3)[0][0].pairs} == {5.0}
    ((found, _),) = DocumentStream(by_clip(tmp_path, None, clip, group=3), epochs=1)
    assert all(abs(pair.similarity) <= 1 for pair in found.pairs if pair.similarity is not None)
    assert None not in {pair.similarity for pair in found.pairs}


def test_a_document_whose_images_are_all_torn(tmp_path: Path, images: Path, clip: Path) -> None:
    (tmp_path / "llava.json").write_text(json.dumps([llava(0, image="torn.png")]))
    stream = DocumentStream(by_clip(tmp_path, images, clip), epochs=1)
    assert list(stream) == []
    assert stream.dropped == {"image undecodable": 1, "fewer than 2 pairs": 1}


def test_clip_that_is_not_there_is_an_error_at_once(tmp_path: Path, images: Path) -> None:
    lines(tmp_path / "docs.jsonl", [mmc4(0)])
    with pytest.raises(ModelNotFoundError, match="no such folder"):
        by_clip(tmp_path, images, tmp_path / "nowhere")
