"""The log of a run, through crashes and from a checkpoint on; and what an evaluation's numbers mean."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from PIL import Image

from aim_sdk.support import figures
from aim_sdk.training import journal as journal_module
from aim_sdk.training.estimates import Estimate, difference, summarize
from aim_sdk.training.evaluation import MEASURES, ROWS, Estimates, Score, Scores, aim_minus, estimates
from aim_sdk.training.journal import TrainingJournal, plot, read_log
from aim_sdk.training.verdict import Best, verdict

LOSSES: Estimates = {m: {row: Estimate(2.0 + place, 0.1, 8) for place, row in enumerate(ROWS)} for m in MEASURES}
GAINS: Estimates = {measure: {row: Estimate(-0.5, 0.1, 8) for row in ROWS[1:]} for measure in MEASURES}


def kept(output: Path) -> list[int]:
    return [line["step"] for line in read_log(output)]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """A run that was evaluated at steps 0 and 4, and got to step 6."""
    journal = TrainingJournal(tmp_path, 0)
    journal.evaluation(0, LOSSES, GAINS)
    for step in range(1, 7):
        journal.training(step, loss=3 / step, rate=0.1)
        if step == 4:
            journal.evaluation(4, LOSSES, GAINS)
    journal.close()
    return tmp_path


def test_every_line_says_its_step(output: Path) -> None:
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2, 3, 4, 4, 5, 6]
    assert lines[1] == {"step": 1, "loss": 3.0, "rate": 0.1}
    assert lines[5]["evaluation"]["kl"]["text-only"] == {"mean": 4.0, "error": 0.1, "n": 8}
    assert lines[5]["aim_minus"].keys() == lines[5]["evaluation"].keys() == set(MEASURES)
    assert lines[5]["aim_minus"]["names"].keys() == set(ROWS[1:])
    assert list((output / "tensorboard").iterdir())


def test_a_line_is_there_as_soon_as_it_is_written(output: Path) -> None:
    journal = TrainingJournal(output, 6)
    journal.training(7, loss=1.0)
    assert kept(output)[-1] == 7
    journal.close()


@pytest.mark.parametrize("step", range(-1, 8))
def test_lines_behind_the_checkpoint_are_dropped(output: Path, step: int) -> None:
    before = read_log(output)
    journal = TrainingJournal(output, step)
    assert journal.lines == read_log(output) == [line for line in before if line["step"] <= step]
    journal.training(step + 1, loss=1.0)
    journal.close()
    assert kept(output) == [line["step"] for line in before if line["step"] <= step] + [step + 1]


def test_the_last_evaluation_of_a_shorter_run_is_dropped(output: Path) -> None:
    TrainingJournal(output, 6, every=3).close()
    lines = read_log(output)
    assert [line["step"] for line in lines if "evaluation" in line] == [0]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4, 5, 6]


def test_a_log_that_is_cut_anywhere_loses_its_last_line_only(output: Path) -> None:
    path = output / "log.jsonl"
    data = path.read_bytes()
    start = data.rindex(b"\n", 0, -1) + 1
    for cut in range(start, len(data) - 1):
        path.write_bytes(data[:cut])
        assert kept(output) == [0, 1, 2, 3, 4, 4, 5]
    journal = TrainingJournal(output, 6)
    journal.training(6, loss=1.0)
    journal.close()
    assert kept(output) == [0, 1, 2, 3, 4, 4, 5, 6]
    assert path.read_bytes().count(b"\n") == 8


@given(st.binary(max_size=40).filter(lambda data: data.isascii()))
def test_what_is_no_line_of_a_log_is_left_out(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    output = tmp_path_factory.getbasetemp()
    (output / "log.jsonl").write_bytes(b'{"step": 1}\n' + data + b'\n[3]\n{"loss": 1}\n{"step": "x"}\n{"step": 2}\n')
    assert [step for step in kept(output) if step in (1, 2)] == [1, 2]
    assert read_log(output / "not there") == []


def test_the_plot_is_drawn_at_every_evaluation(output: Path, tmp_path: Path) -> None:
    with Image.open(output / "loss.png") as image:
        image.load()
        assert min(image.size) > 500
    (output / "loss.png").unlink()
    journal = TrainingJournal(output, 6)
    journal.evaluation(6, LOSSES, GAINS)
    journal.close()
    assert (output / "loss.png").exists()


def test_losses_that_are_no_numbers_are_drawn_and_read_again(tmp_path: Path) -> None:
    journal = TrainingJournal(tmp_path, 0)
    journal.evaluation(0, {measure: {row: summarize([]) for row in ROWS} for measure in MEASURES}, {})
    journal.close()
    assert read_log(tmp_path)[0]["evaluation"]["names"]["aim"] == {"mean": None, "error": None, "n": 0}
    assert "NaN" not in (tmp_path / "log.jsonl").read_text(), "JSON has no such word"
    plot([{"step": 1, "loss": 2.0}], tmp_path / "one.png")
    assert (tmp_path / "one.png").exists()


def lines_at(*steps: int) -> list[dict[str, Any]]:
    rows = {row: {"mean": 2.0, "error": 0.3, "n": 8} for row in ROWS}
    return [{"step": step, "evaluation": dict.fromkeys(MEASURES, rows)} for step in steps]


@pytest.mark.parametrize("steps", [(0, 2), (0,), tuple(range(0, 1001, 10))])
def test_every_row_of_a_short_run_is_seen(steps: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(figures, "png", lambda figure: drawn.append(figure) or b"")
    monkeypatch.setattr(journal_module, "write_atomic", lambda *_: None)
    plot([*lines_at(*steps), {"step": 2, "loss": 1.9}], Path("loss.png"))
    training, *others = drawn[0].axes
    (line,) = training.get_lines()
    assert line.get_marker() == "o", "a line of one point is not seen without"
    for panel in drawn[0].axes:
        panel.figure.canvas.draw()
        inside = [tick for tick in panel.get_xticks() if panel.get_xlim()[0] <= tick <= panel.get_xlim()[1]]
        assert inside
        assert all(tick == int(tick) for tick in inside)
    for panel in others:
        rows = [c[0].get_xdata() for c in panel.containers if isinstance(c, ErrorbarContainer)]
        for step, places in zip(steps, zip(*rows, strict=True), strict=True):
            assert len(set(places)) == len(ROWS)
            assert all(round(place, -1 if len(steps) > 2 else 0) == step for place in places)


def test_a_journal_that_nothing_is_written_to_has_no_tensorboard_file(tmp_path: Path) -> None:
    TrainingJournal(tmp_path, 0).close()
    assert not (tmp_path / "tensorboard").exists()


# --- what an evaluation's numbers mean


@pytest.mark.parametrize("right", [0.0, 1.0])
def test_a_share_in_which_no_episode_differs_has_no_error(right: float) -> None:
    scores: Scores = {row: [Score((3.0, 2.0), (0.5, 1.0), (right, 1.0))] * 3 for row in ROWS}
    found, gains = estimates(scores), aim_minus(scores)
    assert f"{found['names']['aim']}" == f"{right:.4f} (all alike: no standard error)"
    assert math.isnan(gains["names"]["start"].error)
    assert math.isnan(Best.of(1, scores).names.error)
    assert "rightly +0.0000 (all alike: no standard error)" in verdict(Best.of(1, scores))
    assert found["loss"]["aim"].error == gains["loss"]["start"].error == 0, "the same numbers, not few answers"
    scores["aim"] = [*scores["aim"][:2], Score((3.0, 2.0), (0.5, 1.0), (1 - right, 1.0))]
    assert estimates(scores)["names"]["aim"].error > 0


SCORES = st.lists(st.tuples(st.floats(0, 50), st.integers(0, 9)), max_size=12)


@given(SCORES)
def test_the_mean_is_over_tokens_of_episodes_that_could_be_used(scores: list[tuple[float, int]]) -> None:
    used = [pair for pair in scores if pair[1]]
    found = summarize(scores)
    assert found.n == len(used)
    if not used:
        assert math.isnan(found.mean)
        return
    assert found.mean == pytest.approx(sum(loss for loss, _ in used) / sum(tokens for _, tokens in used))
    assert math.isnan(found.error) == (len(used) == 1)


def test_the_error_is_what_many_samples_scatter_by() -> None:
    rng = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, 9, (400, 64), generator=rng).double()
    losses = tokens * (2 + torch.randn(400, 64, generator=rng, dtype=torch.float64))
    found = [
        summarize(list(zip(row.tolist(), map(int, n.tolist()), strict=True)))
        for row, n in zip(losses, tokens, strict=True)
    ]
    scatter = torch.tensor([loss.mean for loss in found]).std()
    assert float(torch.tensor([loss.error for loss in found]).mean()) == pytest.approx(float(scatter), rel=0.15)


@given(SCORES, st.floats(-3, 3))
def test_a_difference_is_paired(scores: list[tuple[float, int]], gain: float) -> None:
    """What all episodes have in common has no error."""
    other = [(loss - gain * tokens, tokens) for loss, tokens in scores]
    found = difference(scores, other)
    assert found.n == sum(1 for _, tokens in scores if tokens)
    if found.n:
        assert found.mean == pytest.approx(gain, abs=1e-9)
    if found.n > 1:
        assert found.error == pytest.approx(0, abs=1e-9)


def test_an_episode_that_one_row_could_not_use_is_in_no_difference() -> None:
    found = difference([(4.0, 2), (0.0, 0), (6.0, 2)], [(5.0, 2), (9.0, 3), (9.0, 2)])
    assert (found.mean, found.n) == (pytest.approx(-1.0), 2)
