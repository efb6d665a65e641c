"""Accuracy, its standard error and the confusion of labels, next to the nearest neighbours."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from aim_sdk.answering.label_report import LabelReport, lines, markdown, report_of, write_report


def answers(*rows: tuple[str | None, str, str | None]) -> list[dict[str, Any]]:
    return [{"reference": a, "answer": b} | ({} if c is None else {"nearest": c}) for a, b, c in rows]


SOME = answers(
    ("cat", "cat", "cat"), ("cat", "dog", "cat"), ("dog", "dog", "dog"), ("dog ", "cat", "dog"), ("Cat", "cat", "cat")
)


def test_numbers() -> None:
    report = report_of(SOME, ["cat", "dog", "ox"])
    assert report is not None
    assert (report.labels.right, report.labels.n, report.labels.accuracy) == (2, 5, 0.4)
    assert report.labels.standard_error == pytest.approx(math.sqrt(0.4 * 0.6 / 4))
    assert report.nearest is not None
    assert report.nearest.right == 4
    assert report.nearest_ahead == pytest.approx(0.4)
    assert report.confusion == {"cat": {"cat": 1, "dog": 1}, "dog": {"dog": 1, "cat": 1}, "Cat": {"cat": 1}}
    assert report.unknown == ["Cat"]
    said = lines(report)
    assert said[0] == (
        "right: 2 of 5, 40.0 +- 24.5 % (standard error); the right label of 1 query is no choice, which counts as "
        "wrong: 'Cat' (did you mean 'cat'?)"
    )
    assert "nearest neighbours (a vote, no LLM): 4 of 5, 80.0 +- 20.0 %" in said
    assert any(line.startswith("The vote is right more often: +40.0 +- 24.5 points") for line in said)


def test_nothing_known_and_some_votes_missing() -> None:
    assert report_of(answers((None, "cat", None)), ["cat", "dog"]) is None
    report = report_of([*SOME, *answers(("cat", "cat", None))], ["cat", "dog"])
    assert report is not None
    assert report.nearest is None
    assert not any("nearest" in line for line in lines(report))


@pytest.mark.parametrize("classes", [2, 6, 10, 30])
def test_80_columns(classes: int) -> None:
    names = [f"class {n} {'of a long name' * (n % 2)}" for n in range(classes)]
    report = report_of(answers(*((a, b, a) for a in names for b in names for _ in range(11))), names)
    assert report is not None
    said = lines(report)
    assert max(map(len, said)) <= 80
    assert len(markdown(report).splitlines()) == 10 + classes


def test_files(tmp_path: Path) -> None:
    report = report_of(SOME, ["cat", "a|b"])
    assert report is not None
    write_report(report, tmp_path / "x.csv")
    assert LabelReport.model_validate(json.loads((tmp_path / "x.csv.report.json").read_text())) == report
    assert "a\\|b" in (tmp_path / "x.csv.report.md").read_text()


def test_one_label_has_no_standard_error_and_every_choice_has_a_row() -> None:
    report = report_of(answers(("cat", "ox", None)), ["cat", "dog", "ox"])
    assert report is not None
    said = lines(report)
    assert said[0] == "right: 0 of 1, 0.0 %"
    assert "Right: 0 of 1, 0.0 %.\n" in markdown(report)
    rows = [line.split() for line in said if line.lstrip()[:1].isdigit()]
    assert [row[:2] for row in rows] == [["1", "cat"], ["2", "dog"], ["3", "ox"]]
    assert rows[1][2:] == [".", ".", ".", "0"]


def test_right_labels_that_are_no_choice_have_a_near_one() -> None:
    report = report_of(answers(("cta", "cat", None)), ["cat", "dog"])
    assert report is not None
    assert any("'cta' (did you mean 'cat'?)" in line for line in lines(report))


def test_what_misleads_stands_next_to_the_accuracy() -> None:
    found = answers(*[("Red Circle", "red circle", None)] * 3, ("RED CIRCLE", "blue", None))
    report = report_of(found, ["red circle", "blue"], unanswered=2)
    assert report is not None
    expected = (
        "ight: 0 of 4 answered, 0.0 % (2 without an answer); the right labels of 4 queries are "
        "no choice, which counts as wrong: 'Red Circle' (did you mean 'red circle'?), 'RED CIRCLE' (did you mean "
        "'red circle'?)"
    )
    assert lines(report)[0] == f"r{expected}"
    assert f"R{expected}.\n" in markdown(report)
    assert (report.labels.n, report.unanswered) == (4, 2)


def test_classes_that_look_the_same_in_the_table_are_named() -> None:
    report = report_of(answers(("blue square", "blue  square", None)), ["blue square", "red", "blue  square"])
    assert report is not None
    said = "In the table, only case or blanks tell apart 'blue  square' and 'blue square'."
    assert said in lines(report)
    assert "blue square" in markdown(report).split(said.split("'")[0])[1]
    plain = report_of(SOME, ["cat", "dog"])
    assert plain is not None
    assert not any(line.startswith("In the table") for line in lines(plain))
