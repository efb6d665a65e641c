"""`aim-icl corpus inspect` as a user runs it."""

import json
import os
from pathlib import Path

import pytest

from aim_sdk.training.corpora import Corpus
from tests.conftest import CalledCli
from tests.corpora import captioned, folder_of, lines, mmc4, tar


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images = folder_of(tmp_path / "images", 4)
    (images / "3.png").write_bytes((images / "3.png").read_bytes()[:500])
    (tmp_path / "docs").mkdir()
    documents = [mmc4(n, images=4) for n in range(6)]
    documents[1]["text_list"][0] = "a \x1b[31mred\n [bold]word " + "x" * 200
    lines(tmp_path / "docs" / "docs_shard_0.jsonl", [*documents, mmc4(6, images=1), "no document"])
    return tmp_path


def test_inspect_shows_documents_counts_and_reasons(folder: Path, call_cli: CalledCli) -> None:
    arguments = ["inspect", str(folder / "docs"), "--images", str(folder / "images"), "--min-image-bytes", "400"]
    done = call_cli("corpus", *arguments, "--show", "2", "--decode", "--json", str(folder / "counts.json"))
    assert done.returncode == 0, done.stderr
    assert "docs_shard_0.jsonl:0" in done.stdout
    assert "sentence 0.1" in done.stdout
    assert f"0.png ({(folder / 'images' / '0.png').stat().st_size} bytes)" in done.stdout
    assert "sentence 2." not in done.stdout, "two were asked for"
    assert "[bold]word" in done.stdout
    assert "\x1b" not in done.stdout
    assert "…" in done.stdout
    assert "mmc4, 1 files: 8 documents, of which 6 are kept with 24 pairs" in done.stdout
    counts = json.loads((folder / "counts.json").read_text())
    assert counts["pairs_per_document"] == {"4": 6}
    assert {(item["what"], item["reason"], item["count"]) for item in counts["dropped"]} == {
        ("pair", "image undecodable", 6),
        ("document", "fewer than 2 pairs", 1),
        ("document", "malformed document", 1),
    }
    assert counts["complete"]
    assert counts["settings"]["min_image_bytes"] == 400
    for item in counts["dropped"]:
        assert item["reason"] in done.stdout
        assert item["first"] in done.stdout

    strict = call_cli("corpus", *arguments, "--min-similarity", "0.38", "--max-images", "2", "--no-one-to-one")
    assert "similarity below 0.38" in strict.stdout
    few = call_cli("corpus", *arguments, "--limit", "2", "--show", "0", "--json", str(folder / "counts.json"))
    assert ": 2 documents, of which 2 are kept" in few.stdout
    assert not json.loads((folder / "counts.json").read_text())["complete"]
    unseen = call_cli("corpus", "inspect", str(folder / "docs"))
    assert "of which 0 are kept" in unseen.stdout
    assert "--images" in unseen.stderr
    assert unseen.returncode == 1


def test_a_corpus_of_which_nothing_is_kept_names_the_setting(folder: Path, call_cli: CalledCli) -> None:
    where = ["inspect", str(folder / "docs"), "--images", str(folder / "images")]
    small = call_cli("corpus", *where, "--min-image-bytes", "100000")
    assert small.returncode == 1
    assert "nothing is kept" in small.stderr
    assert small.stderr.index("--min-image-bytes") < small.stderr.index("--min-pairs")
    assert "corpus.min_image_bytes" in small.stderr
    unlike = call_cli("corpus", *where, "--min-image-bytes", "0", "--min-similarity", "2")
    assert unlike.returncode == 1
    assert "corpus.min_similarity" in unlike.stderr


def test_images_inside_a_damaged_tar(folder: Path, call_cli: CalledCli) -> None:
    path = tar(folder / "0.tar", captioned(range(9), similarity=0.3))
    path.write_bytes(path.read_bytes()[:-13_000])
    done = call_cli("corpus", "inspect", str(path), "--min-image-bytes", "0", "--group", "2", "--show", "1")
    assert done.returncode == 0, done.stderr
    assert "image of 8" in done.stdout
    assert "tar truncated or broken" in done.stdout
    assert "webdataset" in done.stdout


def test_ctrl_c_shows_what_was_counted(folder: Path, call_cli: CalledCli, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Corpus.document

    def interrupted(self: Corpus, file: int, index: int, drops: object) -> object:
        if index == 4:
            raise KeyboardInterrupt
        return original(self, file, index, drops)  # type: ignore[arg-type]

    monkeypatch.setattr(Corpus, "document", interrupted)
    done = call_cli("corpus", "inspect", str(folder / "docs"), "--json", str(folder / "counts.json"))
    assert done.returncode == 130
    assert "4 documents, of which 0 are kept" in done.stdout
    assert "interrupted: 4 documents were counted" in done.stderr
    assert not json.loads((folder / "counts.json").read_text())["complete"]


def test_errors_without_tracebacks(folder: Path, call_cli: CalledCli) -> None:
    docs = str(folder / "docs")
    for arguments, message in (
        ([str(folder / "nothing")], "no such file or folder of a corpus"),
        ([docs, "--images", str(folder / "nothing")], "no such folder of images"),
        ([docs, "--format", "mmc5"], "--format 'mmc5': no format named 'mmc5'. Did you mean 'mmc4'"),
        ([docs, "--max-images", "2", "--min-pairs", "3"], "max_images=2 and min_pairs=3: no document has"),
        ([docs, "--format", "obelics"], "none of 1 files has the format 'obelics'"),
        ([docs, "--similarity", "clip", "--clip-model", "ViT-B32"], "Did you mean 'ViT-B-32'"),
        ([docs, "--json", os.devnull + "/x.json"], "cannot be written"),
        ([str(folder / "images")], "no known format"),
    ):
        done = call_cli("corpus", "inspect", *arguments)
        assert done.returncode == 1, arguments
        assert message in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
