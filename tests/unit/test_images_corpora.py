"""The images of a corpus are files of strangers: bounded, and found only where they belong."""

import base64
import os
from pathlib import Path

import pytest

from aim_sdk.errors import InputError
from aim_sdk.files import images
from aim_sdk.training.corpora.drops import Dropped
from aim_sdk.training.corpora.images import CorpusImages


def test_images_over_the_limit_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_FILE_BYTES", 100)
    (tmp_path / "a.png").write_bytes(b"a" * 101)
    found = CorpusImages(tmp_path, 1, resolve=lambda _: b"a" * 101)
    text = base64.b64encode(b"a" * 101).decode()
    shard = tmp_path / "shard.jsonl"
    for lookup in (
        lambda: found.named("a.png", shard),
        lambda: found.at("https://example.org/a.png", shard),
        lambda: found.base64(text),
        lambda: found.base64("A" * 1_000),
        lambda: found.anywhere(f"data:image/png;base64,{text}", shard),
    ):
        with pytest.raises(Dropped, match="image larger than 100 bytes"):
            lookup()
    assert found.base64(text[:-8]) == b"a" * 96


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_a_pipe_is_no_image_of_a_corpus(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(Dropped, match="image missing"):
        CorpusImages(tmp_path, 1).named("a.png", tmp_path / "shard.jsonl")


@pytest.mark.parametrize("name", ["a\0b.png", "\ud83d.png", "a" * 5_000])
def test_names_that_are_no_names(tmp_path: Path, name: str) -> None:
    for source in (name, f"https://example.org/{name}"):
        with pytest.raises(Dropped, match="image missing"):
            CorpusImages(tmp_path, 1).anywhere(source, tmp_path / "shard.jsonl")


def test_a_nested_map_of_addresses_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "urls.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match=r"urls\.json: cannot be used"):
        CorpusImages(tmp_path, 1)
