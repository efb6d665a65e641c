"""Reports: everything that a number depends on, escaped; what has no number has none."""

import csv
import io
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from aim_sdk.errors import ArtifactNotFoundError, CorruptArtifactError
from aim_sdk.evaluation import plots, report
from aim_sdk.evaluation.compare import compare
from aim_sdk.evaluation.results import RESULT, Question, Run
from aim_sdk.evaluation.unfinished import begin
from aim_sdk.support.modes import COLOURS, LABELS
from aim_sdk.types import Mode
from tests.evaluation_runs import cells, run

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
MODES: Sequence[Mode] = get_args(Mode)
PLAIN = run(cells("zero-shot", 0, {0: [0, 100]}) + cells("aim", 2, {0: [0, 100], 1: [100, 100]}))


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("|")]


def test_a_report_names_everything_and_escapes_it(tmp_path: Path) -> None:
    runs = {"one": PLAIN, "two": run(cells("zero-shot", 0, {0: [0, 100]}), too_long=1, value=math.nan)}
    written = report.write(runs, tmp_path / "report")
    assert [path.name for path in written] == ["scores.png", "costs.png", "report.md", "report.html", "answers.csv"]
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == sorted(path.name for path in written)
    text, page = written[2].read_text(), written[3].read_text()
    for shown in (text, page):
        for part in (
            "75.0 ± 3.0",
            "1 of 2 too long",
            "protocol aim",
            "interleaved: one image per prompt",
            "2026-11-25",
        ):
            assert part in shown
    assert "m\\|&lt;script&gt;" in text
    assert "<script" not in page
    assert "<b>plain" not in page
    assert page.count("data:image/png;base64,") == 2
    assert not re.search(r'(src|href)="(?!data:)', page)


def test_a_row_a_mode_and_a_column_a_number_of_shots() -> None:
    scores, costs = report.grids({"one": PLAIN})
    assert scores.caption == "colours · exact match, % ± standard error · protocol aim · n=2 queries, 2 seeds"
    assert scores.head == ("", "k=0", "k=2")
    assert scores.rows == (("zero-shot", "50.0 ± 3.0", ""), ("AIM", "", "75.0 ± 3.0"))
    assert costs.rows == (("zero-shot", "9 · 0.1 s", ""), ("AIM", "", "9 · 0.1 s"))


def test_runs_stand_side_by_side_also_where_one_lacks_a_task() -> None:
    other = run(cells("aim", 4, {0: [0, 0, 0]}) + cells("aim", 2, {0: [0]}, task="shapes"), protocol="qwen-vl")
    colours, shapes, *_ = report.grids({"one": PLAIN, "two": other})
    assert colours.head == ("run", "", "k=0", "k=2", "k=4")
    assert [row[:2] for row in colours.rows] == [("one", "zero-shot"), ("one", "AIM"), ("two", "AIM")]
    assert "one: exact match, % ± standard error · protocol aim · n=2 queries, 2 seeds" in colours.caption
    assert "two: exact match, % ± standard error · protocol qwen-vl · n=3 queries, 1 seed" in colours.caption
    assert [row[0] for row in shapes.rows] == ["two"]


def test_a_score_without_an_error_or_without_a_value_is_no_number() -> None:
    alone = run(cells("aim", 2, {0: [100]}), standard_error=math.nan)
    undefined = run(cells("aim", 2, {0: [100]}), value=math.nan, standard_error=math.nan)
    assert report.grids({"one": alone})[0].rows == (("AIM", "100.0"),)
    assert report.grids({"one": undefined})[0].rows == (("AIM", "not defined"),)


def test_a_report_of_scores_that_are_not_defined_is_drawn(tmp_path: Path) -> None:
    empty = run(cells("aim", 2, {0: [100]}), value=math.nan, standard_error=math.nan)
    assert len(report.write({"one": empty}, tmp_path)) == 5


def test_names_in_brackets_reach_the_console() -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    for table in report.tables({"runs[red]": PLAIN, "b": PLAIN}):
        console.print(table)
    assert "runs[red]" in console.export_text()


def test_all_modes_have_labels_and_colours_of_their_own() -> None:
    assert set(LABELS) == set(COLOURS) == set(MODES)
    assert len(set(COLOURS.values())) == len(set(LABELS.values())) == len(MODES)


names = st.text(st.characters(codec="utf-8"), max_size=8)
places = st.sets(st.tuples(st.sampled_from(["a", "b"]), st.sampled_from(MODES), st.integers(0, 3)), min_size=1)


@settings(deadline=None)
@given(st.dictionaries(names, places, min_size=1, max_size=3))
def test_every_table_is_rectangular_whatever_the_runs_hold(shapes: dict[str, set[tuple[str, Mode, int]]]) -> None:
    runs = {
        name: run([cell for task, mode, k in sorted(held) for cell in cells(mode, k, {0: [0, 100]}, task)])
        for name, held in shapes.items()
    }
    for grid in report.grids(runs):
        assert {len(row) for row in grid.rows} == {len(grid.head)}
        found = lines(report.pipe_table(grid))
        assert {len(re.findall(r"(?<!\\)\|", line)) for line in found} == {len(grid.head) + 1}
        assert len(found) == len(grid.rows) + 2
    held = sum(len(held) for held in shapes.values())
    cells_shown = [cell for grid in report.score_grids(runs) for row in grid.rows for cell in row if "50.0" in cell]
    assert len(cells_shown) == held


def test_a_result_file_is_read_back_and_damage_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactNotFoundError, match="aim-icl eval"):
        Run.load(tmp_path)
    path = PLAIN.save(tmp_path)
    assert Run.load(tmp_path).model_dump_json() == PLAIN.model_dump_json()
    assert Run.load(path).scores[1].value == 75
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(CorruptArtifactError, match=RESULT):
        Run.load(tmp_path)


def test_a_report_says_which_projector_it_was_and_how_it_was_asked() -> None:
    trained: dict[str, Any] = {"kind": "carrier", "hash": "a" * 64, "layers": [-1], "options": {"place": "before"}}
    trained |= {"steps": 480, "corpus": "mmc4", "settings": {"seed": 7}}
    settings = {**PLAIN.settings, "projector": "/models/mine", "limit": 40, "batch_size": 20}
    computed = {"dtype": "bfloat16", "device": "cuda:0 (H200)", "default_format": "chat"}
    known = {"projector": trained, "settings": settings, "computed": computed, "command": "eval --backend llava"}
    found = report.facts(PLAIN.model_copy(update=known))
    assert found["projector"] == (
        "carrier aaaaaaaaaaaa; from /models/mine; layers -1; place=before; trained: steps 480, corpus mmc4"
    )
    assert found["backbone"].endswith("(backend b, bfloat16 on cuda:0 (H200))")
    assert "at most 40" in found["queries"]
    assert found["batch size"] == "20"
    assert found["command"] == "aim-icl eval --backend llava"
    plain = {"kind": "carrier", "hash": "a" * 64, "layers": [-1], "options": {}}
    assert report.facts(PLAIN.model_copy(update={"projector": plain}))["projector"].endswith("; untrained")
    assert "from Python" in report.facts(PLAIN)["command"]
    assert "all of each task" in report.facts(PLAIN)["queries"]


def test_numbers_of_two_metrics_stand_in_two_tables() -> None:
    caption = run(cells("aim", 2, {0: [100, 100]}))
    scores = tuple(score.model_copy(update={"metric": "cider"}) for score in caption.scores)
    other = caption.model_copy(update={"scores": scores, "metrics": {"cider": "CIDEr"}})
    exact, cider, costs = report.grids({"one": PLAIN, "two": other})
    assert ["exact match" in grid.caption for grid in (exact, cider, costs)] == [True, False, False]
    assert {row[0] for row in exact.rows} == {"one"}
    assert {row[0] for row in cider.rows} == {"two"}


def test_a_cost_that_is_a_mean_over_tasks_says_so() -> None:
    several = run([*cells("aim", 2, {0: [0, 100]}), *cells("aim", 2, {0: [0, 100]}, task="shapes")])
    for held, said in ((several, True), (PLAIN, False)):
        labels = [panel.get_ylabel() for panel in plots.costs_figure({"one": held}).axes]
        assert set(labels) == {"mean over 2 tasks" if said else ""}


def test_every_answer_is_a_line_of_a_table(tmp_path: Path) -> None:
    asked = {"colours": {"q0": Question(text="What?\nHm, so", image="a.png", references=("red", "red", "wine"))}}
    report.write({"one": PLAIN.model_copy(update={"queries": asked}), "of before": PLAIN}, tmp_path)
    with (tmp_path / "answers.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * sum(len(answers.predictions) for answers in PLAIN.answers)
    first = rows[0]
    assert (first["run"], first["task"], first["mode"], first["shots"], first["seed"]) == (
        *("one", "colours", "zero-shot"),
        *("0", "0"),
    )
    assert (first["id"], first["question"], first["reference"]) == ("q0", "What?\nHm, so", "red\nwine")
    assert (first["answer"], first["score"]) == ("x", "0.0")
    assert rows[-1]["question"] == ""


def test_a_run_that_is_not_finished_says_how_far_it_is(tmp_path: Path) -> None:
    begin(tmp_path, 12, "eval --backend llava --output 'my run'")
    cell = '{"cell": {"task": "t", "mode": "aim", "shots": 1, "seed": 0}, "number": 1}\n'
    (tmp_path / "answers-0.jsonl").write_text(cell + cell.replace("1}", "2}") + '{"cell": {')
    (tmp_path / "answers-1.jsonl").write_text(cell + "[]\n")
    with pytest.raises(ArtifactNotFoundError) as refused:
        Run.load(tmp_path)
    assert "2 of 12 batches" in str(refused.value)
    assert "`aim-icl eval --backend llava --output 'my run'`, typed in " in str(refused.value)
    begin(tmp_path, 12, None)
    with pytest.raises(ArtifactNotFoundError, match="`evaluate` with the same settings resumes"):
        Run.load(str(tmp_path))


@pytest.mark.parametrize("file", sorted(RESULTS.glob("evaluation-*.json")), ids=lambda path: path.stem)
def test_results_that_were_published_are_read_reported_and_compared(file: Path, tmp_path: Path) -> None:
    found = Run.load(str(file))
    assert "MiB" not in report.markdown({"run": found})
    assert report.write({"run": found}, tmp_path)
    assert compare(found, found, modes=("text-only", "aim"))
