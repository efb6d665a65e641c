"""Tables as people have them: other encodings are named, numbers are labels, and paths stay paths."""

import csv
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

from aim_sdk.answering.frames import demonstrations_from, to_frame
from aim_sdk.answering.queries import read_queries
from aim_sdk.answering.tables import kept_as
from aim_sdk.errors import InputError
from aim_sdk.files.demonstrations import stream_demonstrations
from aim_sdk.files.tables import table_rows, write_table
from aim_sdk.injection.classification import Classification
from aim_sdk.types import Demonstration, Query


def read(path: Path) -> tuple[list[tuple[int, dict[str, Any]]], list[str]]:
    problems: list[str] = []
    return list(table_rows(path, lambda number, row: (number, row), lambda _, said: problems.append(said))), problems


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32"])
def test_other_encodings_come_with_the_command(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes("\ufeffimage,answer\na.png,cat\n".encode(encoding))
    with pytest.raises(InputError, match=r"UTF-(16|32); write it with iconv -f UTF-(16|32) -t UTF-8 FILE > OUT"):
        read(path)


@pytest.mark.parametrize("mark", [";", ",", "\t"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_excels_first_line_names_the_delimiter(tmp_path: Path, mark: str, bom: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(f"{bom}sep={mark}\nimage{mark}answer\na.png{mark}cat\nb.png\n")
    found, problems = read(path)
    assert found == [(3, {"image": "a.png", "answer": "cat"})]
    assert problems == [f"{path}:4: 1 cells under 2 columns"]


def test_other_delimiters_are_named(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("image|answer\na.png|cat\n")
    with pytest.raises(InputError, match="Columns are separated by commas, semicolons or tabs"):
        read(tmp_path / "x.csv")
    (tmp_path / "y.csv").write_text("sep=|\nimage|answer\n")
    with pytest.raises(InputError, match="Columns are separated by commas, semicolons or tabs"):
        read(tmp_path / "y.csv")


def test_an_empty_cell_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("image,answer\n,cat\nb.png,\nc.png,cat\n")
    problems: list[str] = []
    assert len(list(stream_demonstrations(tmp_path / "x.csv", on_problem=problems.append))) == 1
    said = [problem.removeprefix(f"{tmp_path}/x.csv:") for problem in problems]
    assert said == ["2: image: the cell is empty", "3: answer: the cell is empty"]
    (tmp_path / "y.csv").write_text("image\nb.png\n")
    problems.clear()
    list(stream_demonstrations(tmp_path / "y.csv", on_problem=problems.append))
    assert problems == [f"{tmp_path / 'y.csv'}:2: answer: there is no such column"]


def test_a_text_stands_next_to_rows_without_one(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("image,text,answer\na.png,,cat\nb.png,Who?,dog\n")
    found = stream_demonstrations(tmp_path / "x.csv", text="What?", on_problem=lambda text: pytest.fail(text))
    assert [item.text for item in found] == ["What?", "Who?"]


def test_images_are_relative_to_another_folder(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(f"image,answer\na.png,cat\n{tmp_path / 'b.png'},dog\n")
    found = stream_demonstrations(tmp_path / "x.csv", images=Path("photos"), on_problem=lambda text: pytest.fail(text))
    assert [item.image for item in found] == [str(Path("photos", "a.png")), str(tmp_path / "b.png")]
    asked, _ = read_queries(tmp_path / "x.csv", images=Path("photos"))
    assert asked[0].query.image == str(Path("photos", "a.png"))
    assert asked[0].line.image == "a.png"


def test_numbers_are_labels(tmp_path: Path) -> None:
    frame = {"image": ["a.png"] * 4, "n": [1, 1.0, True, "x"], "m": [1, math.nan, None, "x"]}
    assert [item.answer for item in demonstrations_from(frame, text=None, answer="n")] == ["1", "1.0", "True", "x"]
    with pytest.raises(InputError, match=r"row 1: the answer is missing \(nan\)"):
        demonstrations_from(frame, text=None, answer="m")
    with pytest.raises(InputError, match=r"row 0: the answer is missing \(None\)"):
        demonstrations_from({"image": ["a.png"], "m": [None]}, text=None, answer="m")
    (tmp_path / "x.jsonl").write_text(
        '{"image": "a.png", "answer": 1}\n{"image": "a.png", "answer": 1.0}\n{"image": "a.png", "answer": null}\n'
        '{"image": "a.png", "answer": true}\n'
    )
    problems: list[str] = []
    found = list(stream_demonstrations(tmp_path / "x.jsonl", on_problem=problems.append))
    assert [item.answer for item in found] == ["1", "1.0"]
    assert len(problems) == 2
    asked, _ = read_queries(tmp_path / "x.jsonl")
    assert [item.reference for item in asked] == ["1", "1.0", None, None]


def test_one_text_for_all_rows() -> None:
    frame = {"image": ["a.png", "b.png"], "answer": ["cat", "dog"], "text": ["?", math.nan]}
    assert [item.text for item in demonstrations_from(frame)] == ["?", ""]
    assert [item.text for item in demonstrations_from(frame, same_text="What?")] == ["What?", "What?"]
    with pytest.raises(InputError, match=r"no column named 'text'.*(.|\n)*text=None.*same_text="):
        demonstrations_from({"image": ["a.png"], "answer": ["cat"]})


def test_paths_stay_paths(tmp_path: Path) -> None:
    """No spreadsheet runs `=x.png`, and a program finds it."""
    rows = [{"image": "=x.png", "note": "=x"}, {"image": "-1.png", "note": "-1"}, {"image": "a/=x.png", "note": "b"}]
    assert write_table(tmp_path / "x.csv", rows, ["image", "note"]) == 3
    with (tmp_path / "x.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [os.path.normpath(row["image"]) for row in found] == [row["image"] for row in rows]
    assert [row["image"] for row in found] == ["./=x.png", "./-1.png", "a/=x.png"]
    assert [row["note"] for row in found] == ["'=x", "-1", "b"]


@pytest.mark.parametrize("name", ["x.xlsx", "x.json", "x.parquet", "x.txt", "labels.CVS"])
def test_an_output_of_another_format_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"its name ends in \.jsonl, \.csv or \.tsv"):
        kept_as(tmp_path / name)
    for good in ("x.jsonl", "x.csv", "x.TSV", "x"):
        kept_as(tmp_path / good)


def test_frames_know_their_images(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    labels = [Classification("cat", {"cat": 1.0}, image=str(tmp_path / f"{n}.png")) for n in range(2)]
    assert list(to_frame(labels)["image"]) == [str(tmp_path / f"{n}.png") for n in range(2)]
    for n in range(2):
        (tmp_path / f"{n}.png").touch()
    assert list(to_frame(labels, tmp_path)["image"]) == [str(tmp_path / f"{n}.png") for n in range(2)]
    with pytest.raises(InputError, match="to_frame: images is a str; expected"):
        to_frame(labels, "no folder")
    assert json.loads(to_frame(labels).to_json(orient="records"))[0]["label"] == "cat"


def test_rows_are_a_table_too(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("image,text,answer,year\na.png,What?,cat,1\nb.png,Who?,dog,2\n")
    with (tmp_path / "x.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = demonstrations_from(rows, metadata=["year"])
    assert found == [
        Demonstration("a.png", "What?", "cat", {"year": "1"}),
        Demonstration("b.png", "Who?", "dog", {"year": "2"}),
    ]
    assert demonstrations_from(iter(rows), metadata=["year"]) == found
    with pytest.raises(InputError, match=r"row 1: the answer is missing"):
        demonstrations_from([rows[0], {"image": "b.png"}])
    with pytest.raises(InputError, match=r"no column named 'answers'. Did you mean 'answer'"):
        demonstrations_from(rows, answer="answers")
    with pytest.raises(InputError, match="a list of tuple; expected a frame"):
        demonstrations_from([("a.png", "What?", "cat")])


def test_a_label_stands_next_to_its_own_image_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    labels = [Classification("cat", {"cat": 1.0}, image=name) for name in ("a.png", "b.png", "c.png", math.nan)]  # type: ignore[arg-type]
    with monkeypatch.context() as patched:
        patched.setattr("aim_sdk.answering.frames.imported", lambda *_, **__: None)
        with pytest.raises(InputError, match=r"row 1: the label is that of b\.png, but the image is c\.png; expected"):
            to_frame(labels, ["a.png", "c.png", "b.png", math.nan])
        with pytest.raises(InputError, match=r"row 3: the label is that of image of type float"):
            to_frame(labels, ["a.png", "b.png", "c.png", "d.png"])
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    same = ["./a.png", Path("b.png"), Query(str(tmp_path / "c.png"), "?"), float("nan")]
    assert list(to_frame(labels, same)["label"]) == ["cat"] * 4
