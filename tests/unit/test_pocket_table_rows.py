"""A row of pocket's table that is kept says what its run said, and is compared with its projector."""

from pathlib import Path

import pytest

from aim_sdk.errors import InputError
from aim_sdk.evaluation.results import Question, Run
from benchmarks.pocket.table_rows import KeptRow
from benchmarks.pocket.table_runs import Part, Row, TableSettings, run_all
from benchmarks.pocket.table_scores import Answers
from tests import evaluation_runs
from tests.unit.test_artifacts import saved


def run(projector: str, *references: str) -> Run:
    """Two queries answered "x", of which the right answers are the references."""
    cells = [
        *evaluation_runs.cells("aim", 4, {0: [0.0, 0.0]}, "pocket-names"),
        *evaluation_runs.cells("no-image", 4, {0: [0.0, 0.0]}, "pocket-names"),
        *evaluation_runs.cells("aim", 1, {0: [0.0]}, "pocket-formats"),
    ]
    asked = {
        f"q{number}": Question(text="?", image="a.png", references=(reference,), choices=("x", "y"))
        for number, reference in enumerate(references)
    }
    made = evaluation_runs.run(cells)
    return made.model_copy(
        update={
            "queries": {"pocket-names": asked, "pocket-formats": asked},
            "projector": {"kind": "residual", "hash": projector},
        }
    )


def table(folder: Path, projector: Path | None = None) -> TableSettings:
    return TableSettings(
        output=folder / "runs",
        kept=folder / "kept",
        trials=folder / "trials",
        tasks=(),
        parts={"first": Part(shots=(4,), trials=(0, 2)), "second": Part(shots=(1,), trials=(0, 2))},
        rows={"mine": Row(modes=("aim", "no-image"), projector=projector)},
    )


def test_what_is_kept_is_what_the_table_shows(tmp_path: Path) -> None:
    settings = table(tmp_path)
    KeptRow.of("first", "mine", run("0" * 64, "x", "y")).save(settings.kept_row("first", "mine"))
    answers = Answers.load(settings)
    assert answers.scores["mine"] == {4: {("names", "q0"): 1.0, ("names", "q1"): 0.0}, 1: {("formats", "q0"): 1.0}}
    assert answers.scores["mine without images"] == {4: {("names", "q0"): 1.0, ("names", "q1"): 0.0}}
    (origin,) = answers.runs
    assert (origin["part"], origin["row"], origin["projector"]["hash"]) == ("first", "mine", "0" * 64)
    assert "right" not in origin


def test_a_row_of_another_projector_is_refused(tmp_path: Path) -> None:
    projector = saved(tmp_path / "projector")
    settings = table(tmp_path, tmp_path / "projector")
    for part in settings.parts:
        KeptRow.of(part, "mine", run(projector.identity, "x", "y")).save(settings.kept_row(part, "mine"))
    assert run_all(settings)
    assert run_all(settings, parts=["first"])
    KeptRow.of("second", "mine", run("1" * 64, "x", "y")).save(settings.kept_row("second", "mine"))
    assert run_all(settings, parts=["first"])
    with pytest.raises(InputError, match=r"second-mine.json: the answers of projector 111111111111, but .* is"):
        run_all(settings)
