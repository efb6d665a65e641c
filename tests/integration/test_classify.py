"""Labels: a batch equals one image alone and `score`; one bad image stops none; folders and tables in and out."""

import csv
import json
import math
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from aim_sdk import AIMPipeline, Demonstration, Query
from aim_sdk.errors import ImageError, InputError
from tests.conftest import CalledCli
from tests.unit.test_project_files import ROOT

CHOICES = ["cat", "a rather long dog", "ox"]


@pytest.fixture(scope="module")
def pocket() -> AIMPipeline:
    return AIMPipeline.from_pretrained("pocket", device="cpu")


@pytest.fixture(scope="module")
def llava(tiny: Callable[[str], Path]) -> AIMPipeline:
    return AIMPipeline.from_pretrained("llava", model=str(tiny("llava-1.5")), projector="residual", device="cpu")


@pytest.fixture(params=["pocket", "llava"])
def pipe(request: pytest.FixtureRequest, pictures: list[Image.Image]) -> AIMPipeline:
    loaded: AIMPipeline = request.getfixturevalue(request.param)
    made = AIMPipeline(loaded.backend, loaded.projector)
    made.bank.add(
        [Demonstration(image, "What?", answer) for image, answer in zip(pictures, CHOICES[:2] * 2, strict=False)]
    )
    return made


@pytest.mark.parametrize("mode", ["aim", "text-only", "interleaved", "zero-shot", "nearest"])
@pytest.mark.parametrize("normalize", ["tokens", "none", "characters"])
def test_a_batch_equals_one_image_alone_and_score(
    pipe: AIMPipeline, pictures: list[Image.Image], mode: str, normalize: str
) -> None:
    if mode != "aim" and normalize != "tokens":
        pytest.skip("the normalisation does not look at the mode")
    queries = [Query(pictures[4], "What?"), Query(pictures[5], "And what is this one here?"), Query(pictures[6], "?")]
    asked = {"mode": mode, "normalize": normalize, "shots": 3, "selector": "reading"}
    found = pipe.classify(queries, CHOICES, batch_size=2, **asked)
    for query, label in zip(queries, found, strict=True):
        (alone,) = pipe.classify(query, CHOICES, **asked)
        assert alone.probabilities == pytest.approx(label.probabilities, abs=2e-3)
        assert (alone.label, alone.demonstrations) == (label.label, label.demonstrations)
        scores = pipe.score(query, CHOICES, **asked)
        weights = [math.exp(score) for score in scores]
        expected = {choice: weight / sum(weights) for choice, weight in zip(CHOICES, weights, strict=True)}
        assert label.probabilities == pytest.approx(expected, abs=2e-3)
        assert label.label == CHOICES[scores.index(max(scores))]
        assert list(label.probabilities) == CHOICES
        assert sum(label.probabilities.values()) == pytest.approx(1)
        if mode == "nearest":
            assert label.prompt_tokens is None
        else:
            (answer,) = pipe.generate([query], mode=mode, shots=3, selector="reading", max_new_tokens=1)
            assert (label.prompt_tokens, label.demonstrations) == (answer.prompt_tokens, answer.demonstrations)


def test_what_was_shown(pipe: AIMPipeline, pictures: list[Image.Image]) -> None:
    query = Query(pictures[5], "What?")
    for mode in ("aim", "text-only", "interleaved", "no-image"):
        (answer,) = pipe.generate([query], shots=2, mode=mode, selector="first", max_new_tokens=1)
        assert answer.demonstrations == tuple(list(pipe.bank)[:2])
    own = [Demonstration(pictures[7], "What?", "new"), *(entry.demonstration for entry in pipe.bank.values())]
    for mode in ("aim", "interleaved"):
        (answer,) = pipe.generate([query], demonstrations=own, mode=mode, max_new_tokens=1)
        assert answer.demonstrations == (pipe.bank.key(own[0]), *pipe.bank)
    (answer,) = pipe.generate([query], mode="zero-shot", max_new_tokens=1)
    assert answer.demonstrations == ()


def test_a_bad_image_stops_none_when_asked(pipe: AIMPipeline, pictures: list[Image.Image], tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    images = [pictures[4], str(tmp_path / "broken.png"), pictures[5], math.nan, pictures[6]]
    heard: dict[int, str] = {}
    found = pipe.classify(
        (image for image in images),  # type: ignore[misc]
        batch_size=3,
        on_error=lambda place, error: heard.update({place: str(error)}),
    )
    assert sorted(heard) == [1, 3]
    assert "broken.png" in heard[1]
    assert [label.label is None for label in found] == [False, True, False, True, False]
    assert found[1].error == heard[1]
    assert math.isnan(found[1].probability)
    assert list(found[0].probabilities) == CHOICES[:2]  # the answers of the bank
    (alone,) = pipe.classify([pictures[6]], text="What?")
    assert alone.probabilities == pytest.approx(found[4].probabilities, abs=2e-3)
    with pytest.raises(ImageError, match=r"broken\.png") as caught:
        pipe.classify(images[:3], CHOICES, batch_size=1)  # type: ignore[arg-type]
    if pipe.backend.name == "llava":
        assert caught.value.query == 1


def test_a_folder(pipe: AIMPipeline, pictures: list[Image.Image], tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    pictures[4].save(tmp_path / "b.png")
    pictures[5].save(tmp_path / "below" / "a.png")
    (tmp_path / "notes.txt").write_text("no image")
    found = pipe.classify(tmp_path, CHOICES)
    listed = pipe.classify([tmp_path / "b.png", tmp_path / "below" / "a.png"], CHOICES)
    assert [(str(one.image), one.label) for one in found] == [(str(one.image), one.label) for one in listed]
    for one, other in zip(found, listed, strict=True):  # the second call may find the demonstrations computed
        assert one.probabilities == pytest.approx(other.probabilities, rel=1e-4)
    with pytest.raises(InputError, match="no images in this folder"):
        pipe.classify(_empty(tmp_path), CHOICES)


def _empty(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def test_refusals(llava: AIMPipeline, pictures: list[Image.Image]) -> None:
    pipe = AIMPipeline(llava.backend, llava.projector)
    query = Query(pictures[4], "What?")
    with pytest.raises(InputError, match="0 distinct answers"):
        pipe.classify(query)
    for choices in ("cat", ["cat"], ["cat", " "], ["cat", 3]):
        with pytest.raises(InputError, match="at least two non-blank strings"):
            pipe.classify(query, choices)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="differ only in surrounding blanks"):
        pipe.classify(query, ["cat", "cat "])
    with pytest.raises(InputError, match=r"Did you mean 'tokens'\? Expected one of: none, tokens, characters"):
        pipe.classify(query, CHOICES, normalize="token")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"one column of images, not a table; pass table\[\.\.\.\], of: image, text"):
        pipe.classify({"image": ["a.png"], "text": ["b"]}, CHOICES)  # type: ignore[arg-type]
    shown = [Demonstration(pictures[n % 4], f"{n}", f"answer {n}") for n in range(70)]
    with pytest.raises(InputError, match="over 64 distinct answers"):
        pipe.classify(query, demonstrations=shown)
    with pytest.raises(InputError, match="texts differ"):
        pipe.classify(pictures[4], CHOICES, demonstrations=shown[:2])
    with pytest.raises(InputError, match="none of the nearest demonstrations' answers"):
        pipe.classify(query, CHOICES, demonstrations=shown[:2], mode="nearest")


@pytest.fixture
def desk(tmp_path: Path, pictures: list[Image.Image]) -> Path:
    for n, picture in enumerate(pictures):
        folder = tmp_path / "examples" / CHOICES[n % 2] if n < 4 else tmp_path / "photos"
        folder.mkdir(parents=True, exist_ok=True)
        picture.save(folder / f"{n}.png")
    rows = [
        ["image", "text", "answer", "key", "note"],
        *([f"photos/{n}.png", "", "cat", "k", "=cmd"] for n in range(4, 8)),
    ]
    with (tmp_path / "check.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return tmp_path


@pytest.fixture
def label(desk: Path, tiny: Callable[[str], Path], call_cli: CalledCli) -> Callable[..., str]:
    """Runs ``answer``; returns what it says, with its exit code."""

    def call(queries: str, out: str, *more: str) -> str:
        run = call_cli(
            *("answer", "--backend", "llava", "--model", str(tiny("llava-1.5")), "--projector", "residual"),
            *("--demos", str(desk / "examples"), "--queries", str(desk / queries), "--out", str(desk / out)),
            *("--text", "What?", "--device", "cpu", *more),
        )
        return f"{run.returncode} {run.stdout}{run.stderr}"

    return call


def test_csv_in_and_out(desk: Path, label: Callable[..., str]) -> None:
    said = label("check.csv", "x.csv", "--choices", 'cat,"a rather long dog"')
    assert said.startswith("0 right: "), said
    assert "nearest neighbours (a vote, no LLM): " in said
    assert "4 cells begin like formulas" in said
    with (desk / "x.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    kept = [json.loads(line) for line in (desk / "x.csv.jsonl").read_text().splitlines()]
    assert [row["image"] for row in rows] == [f"photos/{n}.png" for n in range(4, 8)]
    for row, line in zip(rows, kept, strict=True):
        assert (row["query_key"], row["note"], line["note"], row["reference"]) == ("k", "'=cmd", "=cmd", "cat")
        assert row["key"] == line["key"] != "k"
        assert float(row["p(cat)"]) + float(row["p(a rather long dog)"]) == pytest.approx(1, abs=2e-6)
        assert line["probability"] == max(line["probabilities"].values()) == line["probabilities"][row["answer"]]
        assert float(row["probability"]) == pytest.approx(line["probability"], rel=1e-5)
        assert len(line["demonstrations"]) == 4
        assert line["nearest"] in CHOICES
    report = json.loads((desk / "x.csv.report.json").read_text())
    assert report["labels"]["n"] == report["nearest"]["n"] == 4
    content = (desk / "x.csv.jsonl").read_bytes().splitlines(keepends=True)
    (desk / "x.csv.jsonl").write_bytes(b"".join(content[:2]) + content[2][:20])  # as after a kill
    (desk / "x.csv").unlink()
    assert label("check.csv", "x.csv", "--choices", 'cat,"a rather long dog"').startswith("0 ")
    with (desk / "x.csv").open(newline="") as file:
        again = list(csv.DictReader(file))
    assert again[:2] == rows[:2]
    for one, other in zip(again, rows, strict=True):  # what is computed again is so up to float noise
        assert float(one["p(cat)"]) == pytest.approx(float(other["p(cat)"]), abs=1e-5)
        assert one["key"] == other["key"]
    assert 'choices: ["cat", "a rather long dog"] there, ["cat", "dog"] now' in label(
        "check.csv", "x.csv", "--choices", "cat,dog"
    )
    (desk / "mine.csv").write_text("precious")
    assert "is not a table of answers" in label("check.csv", "mine.csv", "--choices", "cat,dog")
    assert (desk / "mine.csv").read_text() == "precious"


def test_a_folder_of_photos(desk: Path, label: Callable[..., str]) -> None:
    shutil.move(desk / "photos" / "4.png", (desk / "photos" / "cat").resolve().parent / "4.png")
    (desk / "photos" / "cat").mkdir()
    shutil.move(desk / "photos" / "4.png", desk / "photos" / "cat" / "4.png")
    said = label("photos", "y.jsonl", "--choices-from-bank", "--mode", "nearest", "--shots", "2")
    assert said.startswith("0 right: "), said
    lines = [json.loads(line) for line in (desk / "y.jsonl").read_text().splitlines()]
    assert [(line["image"], line.get("reference")) for line in lines] == [
        ("5.png", None),
        ("6.png", None),
        ("7.png", None),
        ("cat/4.png", "cat"),
    ]
    assert all(line["prompt_tokens"] is None and len(line["demonstrations"]) == 2 for line in lines)
    # A photo that comes first and one that is gone: the others stay, the old answer moves aside.
    shutil.move(desk / "photos" / "7.png", desk / "photos" / "0.png")
    said = label("photos", "y.jsonl", "--choices-from-bank", "--mode", "nearest", "--shots", "2")
    assert "3 answers exist" in said
    assert "1 answer belongs to queries that changed" in said
    names = [json.loads(line)["image"] for line in (desk / "y.jsonl").read_text().splitlines()]
    assert names == ["5.png", "6.png", "cat/4.png", "0.png"]
    (moved,) = (desk / "y.jsonl.stale.jsonl").read_text().splitlines()
    assert json.loads(moved)["image"] == "7.png"
    said = label("photos", "y.jsonl", "--choices-from-bank", "--mode", "nearest", "--shots", "2")
    assert "that changed" not in said


def test_choices_are_given_in_one_way(desk: Path, label: Callable[..., str]) -> None:
    (desk / "classes.txt").write_text("\ufeffcat\n\nox\n")
    said = label("photos", "z.jsonl", "--choices-file", str(desk / "classes.txt"), "--mode", "text-only")
    assert said.startswith("0 "), said
    assert list(json.loads((desk / "z.jsonl").read_text().splitlines()[0])["probabilities"]) == ["cat", "ox"]
    assert "pass one of --choices" in label("photos", "w.jsonl", "--choices", "a,b", "--choices-from-bank")
    assert "at least two" in label("photos", "w.jsonl", "--choices", "a")
    assert not (desk / "w.jsonl").exists()


@pytest.mark.slow
def test_the_tutorial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call_cli: CalledCli) -> None:
    """Its blocks in the order of the page, in an empty folder."""
    page = ROOT / "docs" / "tutorials" / "label-my-photos.md"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    scope: dict[str, object] = {"__name__": "example"}
    ran = 0
    for language, block in re.findall(r"^```(python|bash)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE):
        if language == "python":
            exec(compile(block, page.name, "exec"), scope)
            continue
        for line in filter(lambda line: "/aim-icl " in line, block.splitlines()):
            run = call_cli(*shlex.split(line)[1:])
            assert run.returncode == 0, run.stderr
            ran += 1
    assert ran == 4
    report = json.loads((tmp_path / "check-labels.csv.report.json").read_text())
    assert report["labels"]["n"] == report["nearest"]["n"] == 40
    assert report["labels"]["accuracy"] > 0.4
    with (tmp_path / "labels.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 40
