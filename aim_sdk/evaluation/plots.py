"""Plots of runs: scores, context tokens, seconds and memory over shots."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from aim_sdk.evaluation.results import Run, Score
from aim_sdk.modes import COLOURS, LABELS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS: Final = 3
_STYLES: Final = ("-", "--", ":", "-.")
"""One a run, in turn."""
_ASIDE: Final = 0.06
"""How far the modes stand apart, in doublings of k, so that their error bars do not cover one another."""

Cost = Callable[[Score], float | None]
COSTS: Final[dict[str, Cost]] = {
    "context tokens": lambda score: score.prompt_tokens,
    "seconds a query, in batches": lambda score: score.seconds,
    "peak memory, MiB": lambda score: None if score.peak_bytes is None else score.peak_bytes / 2**20,
}
"""What a query costs; medians, but for memory."""


def scores(runs: Mapping[str, Run]) -> bytes:
    """Draw a panel a task: scores over shots with their standard errors; as PNG."""
    tasks = list(dict.fromkeys(score.task for run in runs.values() for score in run.scores))
    figure, panels = _figure(len(tasks))
    for panel, task in zip(panels, tasks, strict=True):
        label = ""
        for style, (name, run) in enumerate(runs.items()):
            found = [score for score in run.scores if score.task == task]
            for mode in LABELS:
                row = [s for s in found if s.mode == mode and not math.isnan(s.value)]
                legend = LABELS[mode] if len(runs) == 1 else f"{name}: {LABELS[mode]}"
                _draw(panel, row, [s.value for s in row], style, legend, errors=[s.standard_error for s in row])
            label = next((run.metrics[score.metric] for score in found), label)
        panel.set(title=task, xlabel="shots k", ylabel=label)
        _axis(panel, runs)
    _legend(figure, panels)
    return _png(figure)


def costs(runs: Mapping[str, Run]) -> bytes:
    """Draw what a query costs over shots, the mean over tasks, as far as it is known; as PNG."""
    known = {title: cost for title, cost in COSTS.items() if any(_means(run.scores, cost) for run in runs.values())}
    figure, panels = _figure(len(known))
    for panel, (title, cost) in zip(panels, known.items(), strict=True):
        for style, (name, run) in enumerate(runs.items()):
            for mode in LABELS:
                points = _means([s for s in run.scores if s.mode == mode], cost)
                legend = LABELS[mode] if len(runs) == 1 else f"{name}: {LABELS[mode]}"
                row = [next(s for s in run.scores if s.mode == mode and s.shots == k) for k in points]
                _draw(panel, row, list(points.values()), style, legend)
        panel.set(title=title, xlabel="shots k")
        panel.set_ylim(bottom=0)
        _axis(panel, runs)
    _legend(figure, panels)
    return _png(figure)


def _means(found: Sequence[Score], cost: Cost) -> dict[int, float]:
    points = {}
    for k in sorted({score.shots for score in found}):
        values = [value for s in found if s.shots == k and (value := cost(s)) is not None and not math.isnan(value)]
        if values:
            points[k] = sum(values) / len(values)
    return points


def _figure(count: int) -> tuple[Figure, list[Axes]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = max(1, min(count, _COLUMNS))
    rows = max(1, -(-count // columns))
    figure = Figure(figsize=(4.2 * columns, 3.4 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    for unused in grid[count:]:
        unused.set_axis_off()
    return figure, grid[:count]


def _draw(
    panel: Axes,
    row: Sequence[Score],
    values: Sequence[float],
    style: int,
    legend: str,
    errors: Sequence[float] | None = None,
) -> None:
    if not row:
        return
    mode, line = row[0].mode, _STYLES[style % len(_STYLES)]
    if mode == "zero-shot":  # it has one number of shots: a line to compare with
        panel.axhline(values[0], color=COLOURS[mode], linestyle=line, linewidth=1, label=legend)
        return
    options: dict[str, Any] = {"color": COLOURS[mode], "linestyle": line, "marker": "o", "markersize": 4}
    aside = (list(LABELS).index(mode) - 2) * _ASIDE
    shots = [score.shots * 2**aside for score in row]
    bars = None if errors is None else [0.0 if math.isnan(error) else error for error in errors]
    panel.errorbar(shots, values, bars, capsize=2, label=legend, **options)


def _axis(panel: Axes, runs: Mapping[str, Run]) -> None:
    shots = sorted({score.shots for run in runs.values() for score in run.scores})
    panel.set_xscale("symlog", base=2, linthresh=1)
    panel.set_xticks(shots, [str(k) for k in shots])


def _legend(figure: Figure, panels: Sequence[Axes]) -> None:
    """Name each line once, also one that the first panel lacks."""
    handles = {
        label: handle for panel in panels for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, fontsize=8, frameon=False)


def _png(figure: Figure) -> bytes:
    figure.savefig(buffer := io.BytesIO(), dpi=120, format="png")
    return buffer.getvalue()
