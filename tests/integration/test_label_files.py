"""What a labelling job leaves behind: the failed, what was shown, and tables that are taken up again."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import CalledCli

Run = Callable[..., str]


@pytest.fixture
def desk(tmp_path: Path, pictures: list[Image.Image]) -> Path:
    for n, picture in enumerate(pictures):
        folder = tmp_path / "examples" / ("cat" if n < 2 else "dog") if n < 4 else tmp_path / "photos"
        folder.mkdir(parents=True, exist_ok=True)
        picture.save(folder / f"{n}.png")
    return tmp_path


@pytest.fixture
def run(desk: Path, tiny: Callable[[str], Path], call_cli: CalledCli) -> Run:
    """Runs a command in two parts; returns what it says, with its exit code."""

    def call(*arguments: str) -> str:
        made = [str(desk / one[1:]) if one.startswith("@") else one for one in arguments]
        model = ("--backend", "llava", "--model", str(tiny("llava-1.5")), "--projector", "residual", "--device", "cpu")
        done = call_cli(*made, *model)
        return f"{done.returncode} {done.stdout}{done.stderr}"

    return call


LABEL = ("--choices-from-bank", "--text", "What?", "--demos", "@examples")


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_failed_photos_are_listed_by_name(run: Run, desk: Path) -> None:
    for n in range(12):
        (desk / "photos" / f"broken{n:02}.png").write_bytes(b"no image")
    said = run("answer", *LABEL, "--queries", "@photos", "--out", "@x.csv", "--shots", "3")
    assert said.startswith("3 ")
    assert "query of line" not in said
    assert f"{desk / 'photos' / 'broken00.png'}: not an image" in said
    assert "12 queries have no answer: x.csv.failed.jsonl lists them." in said
    failed = lines(desk / "x.csv.failed.jsonl")
    assert [one["image"] for one in failed] == [f"broken{n:02}.png" for n in range(12)]
    assert all("not an image" in str(one["error"]) for one in failed)
    for n in range(12):
        (desk / "photos" / f"broken{n:02}.png").unlink()
    assert run("answer", *LABEL, "--queries", "@photos", "--out", "@x.csv", "--shots", "3").startswith("0 ")
    assert not (desk / "x.csv.failed.jsonl").exists()


@pytest.mark.parametrize("more", [(), ("--selector", "reading"), ("--mode", "text-only"), ("--mode", "nearest")])
def test_what_was_shown_can_be_looked_up(run: Run, desk: Path, more: tuple[str, ...]) -> None:
    run("answer", *LABEL, "--queries", "@photos", "--out", "@x.jsonl", "--shots", "3", *more)
    shown = {line["key"]: line for line in lines(desk / "x.jsonl.demonstrations.jsonl")}
    for line in lines(desk / "x.jsonl"):
        assert isinstance(line["demonstrations"], list)
        assert len(line["demonstrations"]) == 3
        for key in line["demonstrations"]:
            assert Path(str(shown[key]["image"])).parent.name == shown[key]["answer"]
            assert shown[key]["text"] == "What?"


def test_a_table_of_a_folder_is_taken_up_again(run: Run, desk: Path) -> None:
    run("answer", *LABEL, "--queries", "@photos", "--out", "@labels.csv", "--shots", "3")
    again = ("answer", "--choices-from-bank", "--text", "What?", "--demos", "@labels.csv", "--queries", "@labels.csv")
    refused = run(*again, "--out", "@y.csv")
    assert refused.startswith("1 ")
    assert "--images FOLDER says where the images are" in refused
    with (desk / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    (desk / "own.csv").write_text("image,answer\n" + "".join(f"{row['image']},c{n}\n" for n, row in enumerate(rows)))
    own = ("--demos", "@own.csv", "--queries", "@labels.csv", "--images", "@photos")
    said = run("answer", "--choices-from-bank", "--text", "What?", *own, "--out", "@z.csv")
    assert said.startswith("0 "), said
    added = run("bank", "add", "@bank", "@own.csv", "--text", "What?")
    assert added.startswith("3 ")
    assert "--images FOLDER" in added
    assert run("bank", "add", "@bank2", "@own.csv", "--text", "What?", "--images", "@photos").startswith("0 ")


def test_images_of_folders_alone_are_refused(run: Run) -> None:
    said = run("answer", *LABEL, "--queries", "@photos", "--out", "@x.csv", "--images", "@photos")
    assert "--images: " in said
    assert said.startswith("1 ")
    assert "--images: " in run("bank", "add", "@bank", "@examples", "--images", "@photos")


def test_bank_add_puts_a_text_next_to_rows_without_one(run: Run, desk: Path, call_cli: CalledCli) -> None:
    (desk / "d.csv").write_text("image,text,answer\nphotos/4.png,,cat\nphotos/5.png,Who?,dog\n")
    assert run("bank", "add", "@bank", "@d.csv", "--text", "What?").startswith("0 ")
    kept = call_cli("bank", "list", str(desk / "bank"), "--json").stdout
    assert [json.loads(line)["text"] for line in kept.splitlines()] == ["What?", "Who?"]
    unknown = call_cli("bank", "show", str(desk / "bank"), "zz")
    assert "aim-icl bank list" in unknown.stderr


def test_one_cell_is_one(run: Run, desk: Path) -> None:
    (desk / "q.csv").write_text("image,note\nphotos/4.png,=1+1\nphotos/5.png,x\n")
    said = run("answer", *LABEL, "--queries", "@q.csv", "--out", "@x.csv")
    assert "1 cell begins like a formula and has a ' put before it" in said


def test_lines_that_cannot_be_used_are_counted_and_listed(run: Run, desk: Path) -> None:
    (desk / "photos" / "broken.png").write_bytes(b"no image")
    rows = ("photos/4.png,dog", ",cat", "photos/broken.png,cat", "photos/5.png,cat,more", "photos/6.png,")
    (desk / "q.csv").write_text("image,answer\n" + "".join(f"{row}\n" for row in rows))
    for _ in range(2):  # run again, it lists them again
        said = run("answer", *LABEL, "--queries", "@q.csv", "--out", "@x.csv")
        assert said.startswith("3 ")
        assert "3 queries have no answer: x.csv.failed.jsonl lists them." in said
        assert "x.csv: 2 answers of 5 queries." in said
        assert " of 1 answered, " in said
        assert "(2 without an answer)" in said
        failed = lines(desk / "x.csv.failed.jsonl")
        assert [(one["line"], one["image"], one.get("reference")) for one in failed] == [
            (3, None, "cat"),
            (4, "photos/broken.png", "cat"),
            (5, None, None),
        ]
        assert "the cell is empty" in str(failed[0]["error"])
    assert json.loads((desk / "x.csv.report.json").read_text())["unanswered"] == 2
    (desk / "q.jsonl").write_text('{"image": "photos/4.png"}\n{"text": "?"}\nno JSON\n')
    assert "1 answer of 3 queries" in run("answer", *LABEL, "--queries", "@q.jsonl", "--out", "@y.jsonl")
    assert [(one["line"], one["text"]) for one in lines(desk / "y.jsonl.failed.jsonl")] == [(2, "?"), (3, None)]


def test_a_vote_that_fails_fails_no_query(run: Run, desk: Path) -> None:
    (desk / "q.csv").write_text("image,answer\nphotos/4.png,ox\nphotos/5.png,emu\n")
    asked = ("--choices", "ox,emu", "--text", "What?", "--demos", "@examples", "--queries", "@q.csv", "--out", "@x.csv")
    said = run("answer", *asked)
    assert said.startswith("0 "), said
    assert "x.csv: 2 answers of 2 queries." in said
    assert "2 queries have an answer, but no vote of the nearest demonstrations" in said
    assert "none of the nearest demonstrations' answers" in said
    assert not (desk / "x.csv.failed.jsonl").exists()


def test_a_table_has_short_probabilities_and_no_empty_column(run: Run, desk: Path) -> None:
    run("answer", *LABEL, "--queries", "@photos", "--out", "@x.csv", "--mode", "nearest")
    with (desk / "x.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert "prompt_tokens" not in rows[0]
    for row, line in zip(rows, lines(desk / "x.csv.jsonl"), strict=True):
        assert len(row["p(cat)"]) <= 12
        exact = line["probabilities"]["cat"]  # type: ignore[index]
        assert float(row["p(cat)"]) == pytest.approx(exact, rel=1e-5)
    run("answer", *LABEL, "--queries", "@photos", "--out", "@y.csv", "--mode", "text-only")
    assert "prompt_tokens" in (desk / "y.csv").read_text().splitlines()[0]
