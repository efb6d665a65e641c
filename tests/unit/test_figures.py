"""Plots: nothing is cut, every point lies in its panel, no two lines look alike."""

import io
import itertools
import math
import random
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from PIL import Image

from aim_sdk.evaluation import plots, report
from aim_sdk.evaluation.results import Run
from aim_sdk.support import figures
from aim_sdk.support.modes import LABELS
from tests.evaluation_runs import cells, run

SHOTS = (4, 8, 16, 32)
NAMES = (
    "emoji-category",
    "$x_1$ [red]",
    "_hidden",
    "a task with quite a long name that no panel has the room for",
    "日本",
)


def made(tasks: int, seed: int, shots: tuple[int, ...] = SHOTS) -> Run:
    """A run whose costs are typical: memory varies by little on top of a lot."""
    chance = random.Random(seed)
    answers = []
    for number in range(tasks):
        name = f"{NAMES[number % len(NAMES)]}{number or ''}"
        for mode in LABELS:
            for k in (0,) if mode == "zero-shot" else shots:
                answers += cells(mode, k, {0: [100.0 * (chance.random() < 0.4) for _ in range(6)]}, name)
    found = run(answers)
    costs = [{"prompt_tokens": 30 + s.shots * 12, "memory_bytes": (3100 + 5 * s.shots) * 2**20} for s in found.scores]
    scores = tuple(s.model_copy(update=cost) for s, cost in zip(found.scores, costs, strict=True))
    return found.model_copy(update={"scores": scores})


def check(figure: Figure) -> None:
    """Every artist lies in the figure, every point in its panel, and titles and legend cover nothing."""
    picture = np.array(Image.open(io.BytesIO(figures.png(figure))).convert("L"))
    for edge in (picture[0], picture[-1], picture[:, 0], picture[:, -1]):
        assert edge.min() == 255, "something reaches the picture's edge: it is cut there"
    whole = figure.bbox.padded(0.5)
    boxes = [panel.get_tightbbox() for panel in figure.axes]
    parts = [*boxes, *(legend.get_window_extent() for legend in figure.legends)]
    for box in parts:
        assert box is not None
        assert whole.x0 <= box.x0 <= box.x1 <= whole.x1
        assert whole.y0 <= box.y0 <= box.y1 <= whole.y1
    for one, other in itertools.combinations(parts, 2):
        assert one.padded(-1).width < 0 or not one.padded(-1).overlaps(other.padded(-1)), "two parts cover each other"
    for panel in figure.axes:
        inside = panel.get_window_extent()
        assert inside.width > 150
        assert inside.height > 150
        for line in panel.get_lines():
            values = np.ma.filled(np.ma.column_stack([np.ma.asarray(d, float) for d in line.get_data()]), np.nan)
            if line.get_transform() != panel.transData:
                continue
            for x, y in panel.transData.transform(values[~np.isnan(values).any(1)]):
                assert inside.x0 + 3 < x < inside.x1 - 3, "a point lies at the edge, or outside"
                assert inside.y0 + 1 < y < inside.y1 - 1, "a point lies outside"


def looks(figure: Figure) -> list[list[tuple[Any, ...]]]:
    """How each panel's lines look."""
    return [
        [
            (to_hex(c[0].get_color()), c[0].get_marker(), str(c[0]._dash_pattern))  # type: ignore[attr-defined]
            for c in panel.containers
            if isinstance(c, ErrorbarContainer)
        ]
        for panel in figure.axes
    ]


@pytest.mark.parametrize(
    ("tasks", "number"), [(1, 1), (1, 6), (2, 2), (5, 1), pytest.param(16, 1, marks=pytest.mark.slow)]
)
def test_nothing_is_cut(tasks: int, number: int) -> None:
    runs = {f"runs/2026-11-2{seed}/pocket-carrier-{seed}": made(tasks, seed) for seed in range(number)}
    check(plots.scores_figure(runs))
    check(plots.costs_figure(runs))


@pytest.mark.parametrize("shots", [(), (1,), (2, 8), (0, 1, 2, 4, 8, 16, 32), (3, 5, 1000)])
def test_any_shots_lie_within_the_panel(shots: tuple[int, ...]) -> None:
    check(plots.scores_figure({"one": made(1, 0, shots)}))


def test_long_and_odd_names_of_runs_are_cut_and_shown_as_they_are() -> None:
    runs = {name: made(1, seed) for seed, name in enumerate(["_a", "$b$ \x1b[31m", "/folder" * 40 + "/one", ""])}
    figure = plots.scores_figure(runs)
    check(figure)
    said = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(said) == len(LABELS) + len(runs)
    assert any(name.endswith("/folder/one") for name in said)
    assert all(len(name) <= 61 for name in said)


def test_every_run_and_mode_has_a_look_of_its_own() -> None:
    figure = plots.scores_figure({f"run {seed}": made(2, seed) for seed in range(6)})
    for lines in looks(figure):
        assert len(lines) == 6 * len(LABELS)
        assert len(set(lines)) == len(lines)
    styles = [(figures.style(n).marker, str(figures.style(n).dashes)) for n in range(77)]
    assert len(set(styles)) == 77
    assert len({marker for marker, _ in styles[:6]}) == len({dashes for _, dashes in styles[:6]}) == 6


def test_an_error_that_is_not_known_is_no_bar() -> None:
    unknown = run(cells("aim", 4, {0: [0.0, 100.0]}), standard_error=math.nan)
    (panel,) = plots.scores_figure({"one": unknown}).axes
    (container,) = panel.containers
    assert isinstance(container, ErrorbarContainer)
    (bars,) = container[2]
    assert all(np.isnan(segment).any() or not len(segment) for segment in bars.get_segments())


@pytest.mark.parametrize("tasks", [1, 3])
def test_lines_that_lie_on_each_other_are_all_seen(tasks: int) -> None:
    """AIM's tokens are those of its control: their lines lie on each other, and are told apart."""
    runs = {"one": made(tasks, 0, (2, 8))}
    for figure in (plots.scores_figure(runs), plots.costs_figure(runs)):
        check(figure)
        for lines in looks(figure):
            assert len(set(lines)) == len(lines) == len(LABELS)
    tokens = [c[0] for c in figure.axes[0].containers if isinstance(c, ErrorbarContainer)]
    places = {tuple(line.get_xdata()) for line in tokens}
    assert len(places) == len(tokens), "each line stands a little aside"
    with Image.open(io.BytesIO(plots.costs(runs))) as picture:
        assert picture.size[0] > 800


@pytest.mark.parametrize("shots", [(4, 8), (4, 5), (1, 2, 32)])
def test_equal_points_of_two_runs_stand_side_by_side(shots: tuple[int, ...]) -> None:
    same = made(1, 0, shots)
    for figure in (plots.scores_figure({"one": same, "two": same}), plots.costs_figure({"one": same, "two": same})):
        check(figure)
        for panel in figure.axes:
            lines = [c[0] for c in panel.containers if isinstance(c, ErrorbarContainer)]
            at_zero = [float(line.get_xdata()[0]) for line in lines if line.get_color() == "black"]  # type: ignore[index,arg-type]
            assert len(set(at_zero)) == 2
            columns = [line.get_xdata() for line in lines if line.get_color() != "black"]
            for place, group in enumerate(zip(*columns, strict=True)):
                assert len(set(group)) == 2 * (len(LABELS) - 1), "each run and mode has a place of its own"
                assert sorted(shots, key=lambda k: abs(math.log2(k / min(group))))[0] == shots[place]
                assert sorted(shots, key=lambda k: abs(math.log2(k / max(group))))[0] == shots[place]


def test_a_panel_has_its_tasks_title_and_the_name_that_is_typed() -> None:
    plain = run(cells("aim", 4, {0: [0.0, 100.0]}))
    titled = plain.model_copy(update={"tasks": {"colours": {"title": "Colours of shapes"}}})
    for found, said in ((plain, "colours"), (titled, "Colours of shapes (colours)")):
        assert [panel.get_title() for panel in plots.scores_figure({"one": found}).axes] == [said]
        assert report.grids({"one": found})[0].caption.startswith(f"{said} · exact match")
        assert report.grids({"one": found})[1].caption.startswith(f"{said} · median")


def test_several_tasks_of_one_metric_have_a_panel_of_their_mean() -> None:
    assert [panel.get_title() for panel in plots.scores_figure({"one": made(2, 0)}).axes][-1] == "mean of 2 tasks"
    assert len(plots.scores_figure({"one": made(1, 0)}).axes) == 1
