"""Small corpora of every format, written as they are published."""

from __future__ import annotations

import base64
import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from aim_sdk.training.corpora import Corpus, CorpusConfig, Document, DocumentStream, open_corpus

MINIMUM = 400
"""Bytes of the smallest image that tests let through; those of `picture` have more."""


def picture(seed: int, side: int = 16) -> bytes:
    """A PNG of noise; of side 16, some 850 bytes."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


def folder_of(path: Path, count: int) -> Path:
    """A folder of ``0.png``, ``1.png``, ..."""
    path.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (path / f"{number}.png").write_bytes(picture(number))
    return path


def mmc4(number: int, images: int = 3, sentences: int = 4, **fields: Any) -> dict[str, Any]:
    """A document of MMC4 v1.1; its sentences name it, its images are ``0.png``, ..."""
    similarity = np.random.default_rng(number).uniform(0.25, 0.4, (images, sentences))
    best = similarity.argmax(1) if sentences else np.zeros(images, int)
    return {
        "text_list": [f"sentence {number}.{place}" for place in range(sentences)],
        "url": f"http://example.org/{number}.html",
        "image_info": [
            {
                "face_detections": None,
                "image_name": f"{image}.png",
                "matched_sim": float(similarity[image, best[image]]),
                "matched_text_index": int(best[image]),
                "raw_url": f"http://example.org/{image}.png",
            }
            for image in range(images)
        ],
        "similarity_matrix": similarity.tolist(),
        "could_have_url_duplicate": 0,
    } | fields


def inside(document: dict[str, Any]) -> dict[str, Any]:
    """The same document as OpenFlamingo's converter writes it: images in base64."""
    for number, info in enumerate(document["image_info"]):
        info["image_base64"] = base64.b64encode(picture(number)).decode()
    return document


def llava(number: int, turns: int = 1, **fields: Any) -> dict[str, Any]:
    """A sample of LLaVA's instruction data."""
    spoken = []
    for turn in range(turns):
        spoken += [
            {"from": "human", "value": f"<image>\nquestion {number}.{turn}" if turn == 0 else f"question {turn}"},
            {"from": "gpt", "value": f"response {number}.{turn}"},
        ]
    return {"id": f"{number:012}", "image": f"{number}.png", "conversations": spoken} | fields


def lines(path: Path, values: Iterable[Any]) -> Path:
    """JSON lines, packed as the name says."""
    data = "".join(json.dumps(value) + "\n" for value in values).encode()
    if path.suffix == ".gz":
        data = gzip.compress(data)
    if path.suffix == ".zip":
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(path.name.removesuffix(".zip"), data)
        data = packed.getvalue()
    path.write_bytes(data)
    return path


def tar(path: Path, files: Mapping[str, bytes | str]) -> Path:
    """A tar of named files."""
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            data = data.encode() if isinstance(data, str) else data
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def captioned(numbers: Sequence[int], **fields: Any) -> dict[str, bytes | str]:
    """Files of a tar of img2dataset."""
    files: dict[str, bytes | str] = {}
    for number in numbers:
        about = {"caption": f"caption {number}", "key": f"{number:09}", "status": "success", "sha256": "0"} | fields
        files |= {
            f"{number:09}.jpg": picture(number),
            f"{number:09}.txt": f"caption {number}",
            f"{number:09}.json": json.dumps(about),
        }
    return files


def parquet(path: Path, rows: Sequence[Mapping[str, Any]], row_group_size: int = 3) -> Path:
    """Rows of OBELICS."""
    import pyarrow
    import pyarrow.parquet

    fields = {"images": pyarrow.list_(pyarrow.string()), "texts": pyarrow.list_(pyarrow.string())}
    fields |= {"metadata": pyarrow.string(), "general_metadata": pyarrow.string()}
    table = pyarrow.Table.from_pylist(list(rows), pyarrow.schema(list(fields.items())))
    pyarrow.parquet.write_table(table, path, row_group_size=row_group_size)
    return path


def obelics(*places: str) -> dict[str, Any]:
    """A row: addresses become images, all else texts."""
    urls = [place if place.startswith("http") else None for place in places]
    metadata = [None if url is None else {"src": url, "alt_text": "?"} for url in urls]
    return {
        "images": urls,
        "texts": [None if url else place for place, url in zip(places, urls, strict=True)],
        "metadata": json.dumps(metadata),
        "general_metadata": json.dumps({"url": "http://example.org"}),
    }


def opened(path: Path, **settings: Any) -> Corpus:
    """A corpus with the tests' image size."""
    return open_corpus(CorpusConfig(path=path, **({"min_image_bytes": MINIMUM} | settings)))


def read(path: Path, **settings: Any) -> tuple[list[Document], dict[str, int]]:
    """All documents of a corpus in the order of its files, and what was dropped."""
    stream = DocumentStream(opened(path, **({"shuffle": False} | settings)), epochs=1)
    return [document for document, _ in stream], dict(stream.dropped)


def answers(document: Document) -> list[str]:
    return [pair.answer for pair in document.pairs]
