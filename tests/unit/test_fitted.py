"""Tables are readable at 80 columns: no cell is cut, what differs is shown, what is common is said once."""

import io
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console

from aim_sdk.evaluation import compare, report
from aim_sdk.support.fitted import FittedTable, apart
from tests.evaluation_runs import cells, run


def shown(table: Any, width: int) -> str:
    console = Console(width=width, file=(out := io.StringIO()), markup=False, emoji=False, highlight=False)
    console.print(table)
    lines = out.getvalue().splitlines()
    assert all(len(line) <= width for line in lines)
    return "\n".join(line.rstrip() for line in lines)


HEAD = ("key", "image", "text", "answer", "metadata")
CAPTION = "A lynx that stands in the snow at the edge of a dark wood and looks into the camera."
DEMONSTRATIONS = [
    ["1a2b3c4d5e6f", "lynx-0001.jpg", "What is it?", "a lynx", "label=cat"],
    ["2a2b3c4d5e6f", "caracal-0002.jpg", "What is it?", CAPTION, "label=cat source=web"],
]


@pytest.mark.parametrize("width", [60, 80, 200])
def test_no_cell_is_cut(width: int) -> None:
    text = shown(FittedTable(HEAD, DEMONSTRATIONS, keys=2), width)
    words = " ".join(text.split())
    for row in DEMONSTRATIONS:
        assert all(part in words for cell in row[:2] for part in cell.split())
    assert CAPTION in words or width < 80
    assert "…" not in text
    assert min(len(line.strip()) for line in text.splitlines() if line.strip()) > 3, "no column of a few letters"


def test_what_fits_is_one_line_a_row() -> None:
    short = [[*row[:3], "a lynx", "label=cat"] for row in DEMONSTRATIONS]
    assert len(shown(FittedTable(HEAD, short), 80).splitlines()) == 3


def test_a_wide_table_of_numbers_is_split_between_its_columns() -> None:
    answers = cells("zero-shot", 0, {0: [0, 100]})
    for k in (1, 2, 4, 8, 16, 32):
        answers += cells("no-image", k, {0: [0, 100]}) + cells("aim", k, {0: [100, 100]})
    runs = {"llava-carrier": run(answers), "llava-residual": run(answers)}
    text = shown(report.tables(runs)[0], 80)
    assert all(f"k={k}" in text for k in (0, 1, 2, 4, 8, 16, 32))
    assert text.count("100.0 ± 3.0") == 12
    assert "AIM without images (control)" in text
    assert len(re.findall(r"^run", text, re.MULTILINE)) > 1, "several parts, each with the names of its rows"
    assert len(re.findall(r"^run", shown(report.tables(runs)[0], 200), re.MULTILINE)) == 1


@pytest.mark.parametrize("width", [80, 200])
def test_a_comparison_says_each_number(width: int) -> None:
    first = run(cells("text-only", 4, {0: [0, 100, 0, 100]}) + cells("aim", 4, {0: [100, 100, 0, 100]}))
    text = shown(compare.table(compare.compare(first, first, modes=("text-only", "aim"))), width)
    words = " ".join(text.split())
    for part in ("colours", "text-only demonstrations, k=4 → AIM, k=4", "50.0", "75.0", "+25.0 ± 25.0", "1/0 of 4"):
        assert part in words
    assert "better/worse of pairs" in words


@pytest.mark.parametrize(
    ("paths", "common", "names"),
    [
        (["/data/photos/a.jpg", "/data/photos/sub/b.jpg"], "/data/photos/", ["a.jpg", "sub/b.jpg"]),
        (["/data/photos/a.jpg"], "/data/photos/", ["a.jpg"]),
        (["runs/one", "runs/two"], "runs/", ["one", "two"]),
        (["/a/x.jpg", "/b/y.jpg"], "", ["/a/x.jpg", "/b/y.jpg"]),
        (["/data/p/a.jpg", "PIL image"], "", ["/data/p/a.jpg", "PIL image"]),
        (["https://example.org/a.jpg", "/data/a.jpg"], "", ["https://example.org/a.jpg", "/data/a.jpg"]),
        ([], "", []),
    ],
)
def test_the_common_folder_is_said_once(paths: list[str], common: str, names: list[str]) -> None:
    assert apart(paths) == (common, names)


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)))
def test_a_common_folder_and_names_are_the_paths(paths: list[str]) -> None:
    common, names = apart(paths)
    assert len(names) == len(paths)
    assert all(path in (name, common + name) for path, name in zip(paths, names, strict=True))
    assert len(set(names)) == len(set(paths))


@given(
    st.integers(20, 200),
    st.lists(st.lists(st.text(st.characters(codec="ascii"), max_size=90), min_size=3, max_size=3), max_size=3),
    st.booleans(),
)
@example(width=20, rows=[["", "\t0", ""]], parts=False)  # a tab is as wide as it is shown
def test_every_letter_is_shown_whatever_the_width(width: int, rows: list[list[str]], parts: bool) -> None:
    table = FittedTable(("key", "number", "note"), rows, parts=parts)
    console = Console(width=width, file=(out := io.StringIO()), markup=False, emoji=False, highlight=False)
    console.print(table)
    for letter in "abcxyz019":
        assert out.getvalue().count(letter) >= sum(cell.count(letter) for row in rows for cell in row)
