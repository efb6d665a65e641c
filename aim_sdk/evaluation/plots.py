"""Plots of runs: scores, context tokens, seconds and memory over shots.

Colours are modes, markers and dashes are runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from aim_sdk.evaluation.results import Run, Score, titled
from aim_sdk.evaluation.scoring import mean
from aim_sdk.support import figures
from aim_sdk.support.modes import COLOURS, LABELS
from aim_sdk.types import Mode

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Cost = Callable[[Score], float | None]
COSTS: Final[dict[str, Cost]] = {
    "context tokens": lambda score: score.prompt_tokens,
    "seconds per query, in batches": lambda score: score.seconds,
    "seconds to the first token, of one query alone": lambda score: score.first_token_seconds,
    "GPU memory beyond the model, MiB": lambda score: (
        None if score.memory_bytes is None else score.memory_bytes / 2**20
    ),
}
"""The costs of a query: medians, except for memory."""


def scores(runs: Mapping[str, Run]) -> bytes:
    """Draw scores over shots with their standard errors, one panel per task and one for their mean; as PNG."""
    return figures.png(scores_figure(runs))


def costs(runs: Mapping[str, Run]) -> bytes:
    """Draw the costs of a query over shots, as the mean over tasks, as far as they are known; as PNG."""
    return figures.png(costs_figure(runs))


def scores_figure(runs: Mapping[str, Run]) -> Figure:
    """The figure of `scores`."""
    drawn = {name: [*run.scores, *mean(run.scores)] for name, run in runs.items()}
    tasks = list(dict.fromkeys(score.task for found in drawn.values() for score in found))
    figure, panels = figures.panels(len(tasks))
    for panel, task in zip(panels, tasks, strict=True):
        held = {name: [score for score in found if score.task == task] for name, found in drawn.items()}
        for number, found in enumerate(held.values()):
            for mode in LABELS:
                row = [s for s in found if s.mode == mode and not math.isnan(s.value)]
                _draw(panel, mode, number, {s.shots: (s.value, s.standard_error) for s in row}, runs)
        figures.title(panel, titled(runs, task))
        labels = dict.fromkeys(runs[name].metrics[score.metric] for name, found in held.items() for score in found)
        panel.set_ylabel(figures.shortened(" / ".join(labels), 40), fontsize=9, parse_math=False)
        figures.shots_axis(panel, _shots(runs.values()))
    figures.legend(figure, _entries(runs))
    return figure


def costs_figure(runs: Mapping[str, Run]) -> Figure:
    """The figure of `costs`."""
    known = {title: cost for title, cost in COSTS.items() if any(_means(run.scores, cost) for run in runs.values())}
    figure, panels = figures.panels(len(known))
    for panel, (title, cost) in zip(panels, known.items(), strict=True):
        top = 0.0
        for number, run in enumerate(runs.values()):
            for mode in LABELS:
                means = _means([s for s in run.scores if s.mode == mode], cost)
                top = max([top, *means.values()])
                _draw(panel, mode, number, {k: (mean, math.nan) for k, mean in means.items()}, runs)
        figures.title(panel, title)
        panel.set_ylabel(_over(runs), fontsize=9)
        panel.set_ylim(-0.03 * top or None, 1.08 * top or 1.0)
        figures.shots_axis(panel, _shots(runs.values()))
    figures.legend(figure, _entries(runs))
    return figure


def _over(runs: Mapping[str, Run]) -> str:
    """Name the tasks whose mean a panel shows, if there are several."""
    tasks = {score.task for run in runs.values() for score in run.scores}
    return f"mean over {len(tasks)} tasks" if len(tasks) > 1 else ""


def _means(found: Sequence[Score], cost: Cost) -> dict[int, float]:
    points = {}
    for k in sorted({score.shots for score in found}):
        values = [value for s in found if s.shots == k and (value := cost(s)) is not None and not math.isnan(value)]
        if values:
            points[k] = sum(values) / len(values)
    return points


def _draw(
    panel: Axes, mode: Mode, number: int, points: Mapping[int, tuple[float, float]], runs: Mapping[str, Run]
) -> None:
    """Draw one run's line of one mode a little aside from all others, with error bars if there are errors."""
    if not points:
        return
    shots, modes = _shots(runs.values()), _modes(runs)
    apart = figures.asides(len(modes) * len(runs), shots)[modes.index(mode) * len(runs) + number]
    options: dict[str, Any] = {"color": COLOURS[mode], "capsize": 2, **figures.style(number).options}
    places = [figures.aside(k, apart, shots) for k in sorted(points)]
    values, errors = zip(*(points[k] for k in sorted(points)), strict=True)
    if mode == "zero-shot" and len(points) == 1:  # one number of shots: a line to compare all others with
        ends = [places[0], max(shots)]
        panel.errorbar(ends, 2 * values, [*errors, math.nan], markevery=[0], **(options | {"linewidth": 1}))
        return
    panel.errorbar(places, values, errors, **options)


def _shots(runs: Any) -> list[int]:
    return sorted({score.shots for run in runs for score in run.scores})


def _modes(runs: Mapping[str, Run]) -> list[Mode]:
    """Those that any run has, in the order of the rows."""
    held = {score.mode for run in runs.values() for score in run.scores}
    return [mode for mode in LABELS if mode in held]


def _entries(runs: Mapping[str, Run]) -> dict[str, Artist]:
    """The legend: a colour per mode and, if there are several runs, markers and dashes per run."""
    from matplotlib.lines import Line2D

    several = len(runs) > 1
    plain: dict[str, Any] = {"linewidth": 3} if several else figures.style(0).options
    modes: dict[str, Artist] = {LABELS[mode]: Line2D([], [], color=COLOURS[mode], **plain) for mode in _modes(runs)}
    if not several:
        return modes
    styles = enumerate(runs)
    return modes | {f"run {n}": Line2D([], [], color="black", **figures.style(i).options) for i, n in styles}
