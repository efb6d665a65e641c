"""CSV and frames: what is read is what was written, a bad row loses only itself, and no spreadsheet runs a cell."""

import csv
import io
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from aim_sdk.answering.frames import demonstrations_from, to_frame
from aim_sdk.errors import InputError
from aim_sdk.files.demonstrations import stream_demonstrations
from aim_sdk.files.tables import guarded, table_rows, write_table
from aim_sdk.injection.classification import Classification


def read(path: Path) -> tuple[list[tuple[int, dict[str, Any]]], list[str]]:
    problems: list[str] = []
    return list(table_rows(path, lambda number, row: (number, row), lambda _, said: problems.append(said))), problems


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_usual_files_are_read(tmp_path: Path, delimiter: str, bom: bytes, end: str) -> None:
    rows = [
        ["image", "text", "answer"],
        ["a.png", 'a "b"; c,\td', "x"],
        [],
        ["b.png", "", "two\nlines"],
        ["c.png", "é", ""],
    ]
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator=end).writerows(rows)
    path = tmp_path / "x.csv"
    path.write_bytes(bom + text.getvalue().encode())
    found, problems = read(path)
    assert not problems
    assert found == [
        (2, {"image": "a.png", "text": 'a "b"; c,\td', "answer": "x"}),
        (4, {"image": "b.png", "answer": "two\nlines"}),
        (6, {"image": "c.png", "text": "é"}),
    ]


def test_a_bad_row_loses_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text('image,text\na.png\nb.png,ok\n"c"d,ok\nd.png,ok,more\ne.png,ok\n"open')
    found, problems = read(path)
    assert [number for number, _ in found] == [3, 6]
    assert [problem.removeprefix(f"{path}:") for problem in problems] == [
        "2: 1 cells under 2 columns",
        "4: not CSV (',' expected after '\"')",
        "5: 3 cells under 2 columns",
        "7: not CSV (unexpected end of data)",
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"images,text\na,b\n", r"no column `image`.*'images', 'text'.*Did you mean"),
        (b"", "no column `image`.*nothing"),
        (b"image,text,text\n", "two columns are called 'text'"),
        ("image\nK\xf6ln.png\n".encode("cp1252"), r":2: not UTF-8 \(byte 1\)(.|\n)*iconv"),
        ("image\n".encode("utf-16"), "iconv -f UTF-16"),
        (b"image\n\0\n", ":2: not text"),
    ],
)
def test_other_files_are_named(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=said):
        read(path)


CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


@given(rows=st.lists(st.tuples(CELLS, CELLS), max_size=8))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]) -> None:
    path = tmp_path_factory.mktemp("table") / "x.csv"
    write_table(path, [{"image": "i", "a": a, "b": b} for a, b in rows], ["image", "a", "b"])
    found, problems = read(path)
    assert not problems
    expected = [{"image": "i", **{n: guarded(v) for n, v in (("a", a), ("b", b)) if v}} for a, b in rows]
    assert [row for _, row in found] == expected


@given(cell=CELLS)
def test_no_cell_begins_as_a_formula(cell: str) -> None:
    safe = str(guarded(cell))
    assert safe.removeprefix("'") == cell or safe == cell
    try:
        float(safe)
    except ValueError:
        assert not safe.startswith(("=", "+", "-", "@", "\t", "\r"))


def test_numbers_are_no_formulas() -> None:
    assert [guarded(cell) for cell in ("-1.5", "+3e-5", "-cmd", "=1", -2, None)] == [
        "-1.5",
        "+3e-5",
        "'-cmd",
        "'=1",
        -2,
        None,
    ]


def test_demonstrations_of_a_csv_file(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("image,answer,place\na.png,cat,Köln\nb.png,,\n")
    problems: list[str] = []
    (found,) = stream_demonstrations(tmp_path / "x.csv", on_problem=problems.append)
    assert (found.image, found.text, found.answer) == (str(tmp_path / "a.png"), "", "cat")
    assert dict(found.metadata) == {"place": "Köln"}
    assert problems == [f"{tmp_path / 'x.csv'}:3: answer: the cell is empty"]


def test_demonstrations_of_columns() -> None:
    frame = {"photo": ["a.png", "b.png"], "label": ["cat", "dog"], "place": ["Köln", math.nan]}
    found = demonstrations_from(frame, image="photo", text=None, answer="label", metadata=["place"])
    assert [(item.image, item.text, item.answer, dict(item.metadata)) for item in found] == [
        ("a.png", "", "cat", {"place": "Köln"}),
        ("b.png", "", "dog", {}),
    ]
    with pytest.raises(InputError, match=r"no column named 'image'.*photo, label, place"):
        demonstrations_from(frame)
    with pytest.raises(InputError, match=r"row 1: the answer is missing"):
        demonstrations_from(frame, image="photo", text=None, answer="place")


def test_frames_of_pandas() -> None:
    pandas = pytest.importorskip("pandas")
    photos = pandas.DataFrame({"photo": [Image.new("RGB", (2, 2)), "b.png"], "label": ["cat", "dog"]}, index=[7, 9])
    found = demonstrations_from(photos, image="photo", text=None, answer="label")
    assert [item.answer for item in found] == ["cat", "dog"]
    labels = [
        Classification("cat", {"cat": 0.75, "dog": 0.25}, ("k",), 12),
        Classification(None, error="broken"),
    ]
    frame = to_frame(labels, photos["label"])
    assert list(frame.columns) == ["image", "label", "probability", "p(cat)", "p(dog)", "prompt_tokens", "error"]
    assert list(frame.index) == [7, 9]
    assert frame.loc[7, "p(cat)"] == 0.75
    assert frame.loc[9].isna().sum() == 5
    assert len(to_frame([])) == 0
    with pytest.raises(InputError, match="2 labels, but 1 images"):
        to_frame(labels, ["a.png"])
