"""Figures: panels side by side, one legend below them, nothing cut; as PNG.

Names come from outside (tasks, folders of runs): they are shown as they are, never as mathematical text, and cut in the
middle if they are long.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from aim_sdk.support.terminal import clean

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI: Final = 120
_NARROWEST: Final = 5.5
"""Inches of a figure: room for the legend of one panel."""
_TITLE, _ENTRY = 34, 60
"""Characters of a panel's title and of a legend's entry."""
_MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "h")
_APART: Final = 0.07
"""The distance between lines at one number of shots, in doublings, where there is room for all."""
_DASHES: Final = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 3)), (0, (8, 3)))


@dataclass(frozen=True, slots=True)
class Style:
    """How one run's lines are drawn, in any colour."""

    marker: str
    dashes: Any

    @property
    def options(self) -> dict[str, Any]:
        """Of matplotlib."""
        return {"marker": self.marker, "markersize": 4, "linestyle": self.dashes, "linewidth": 1.4}


def style(number: int) -> Style:
    """The style of the line with that number; no two of the first 77 are alike."""
    return Style(_MARKERS[number % len(_MARKERS)], _DASHES[number % len(_DASHES)])


def panels(count: int, *, columns: int = 3, size: tuple[float, float] = (4.2, 3.4)) -> tuple[Figure, list[Axes]]:
    """A figure with this many panels, row by row."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = max(1, min(count, columns))
    rows = max(1, -(-count // columns))
    figure = Figure(figsize=(max(_NARROWEST, size[0] * columns), size[1] * rows), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    for unused in grid[count:]:
        unused.remove()
    return figure, grid[:count]


def title(panel: Axes, text: str) -> None:
    """Set a panel's title."""
    panel.set_title(shortened(text, _TITLE), fontsize=10, parse_math=False)


def shots_axis(panel: Axes, shots: Sequence[int]) -> None:
    """Number of shots: 0, then doublings, every number that was asked with a tick, room left and right of them."""
    places = sorted(set(shots)) or [0]
    unit = _unit(places)  # of the axis: one doubling, and from 0 to the first number
    panel.set_xscale("symlog", base=2, linthresh=unit)
    panel.set_xticks(places, [str(k) for k in places])
    panel.minorticks_off()
    panel.set_xlabel("shots k")
    scale = panel.xaxis.get_transform()
    first, last = scale.transform([float(places[0]), float(places[-1])])
    room = 0.35 * unit + 0.03 * (last - first)
    panel.set_xlim(*scale.inverted().transform([first - room, last + room]))


def steps_axis(panel: Axes, steps: Sequence[int]) -> None:
    """Steps, whole numbers only, with a grid; around a single one, its neighbours."""
    from matplotlib.ticker import MaxNLocator

    panel.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    panel.set_xlabel("step")
    panel.grid(alpha=0.3)
    if len(set(steps)) == 1:
        panel.set_xlim(steps[0] - 1, steps[0] + 1)


def asides(count: int, shots: Sequence[int]) -> list[float]:
    """How far aside each of so many lines stands, in doublings: apart from each other, and near their number."""
    numbers = sorted({k for k in shots if k})
    nearest = min((math.log2(b / a) for a, b in pairwise(numbers)), default=1.0)
    step = min(_APART, 0.8 * min(nearest, 1.0) / max(count, 1))
    return [(place - (count - 1) / 2) * step for place in range(count)]


def aside(k: int, doublings: float, shots: Sequence[int]) -> float:
    """A number of shots a little aside on its axis, so that error bars do not cover each other."""
    return k * 2**doublings if k else doublings * _unit(shots) / 2


def _unit(shots: Sequence[int]) -> int:
    return min((k for k in shots if k), default=1)


def legend(figure: Figure, entries: Mapping[str, Artist]) -> None:
    """Name what is drawn below all panels, in as many columns as fit; the figure grows by its height."""
    if not entries:
        return
    labels = [shortened(name, _ENTRY) for name in entries]
    options: dict[str, Any] = {"loc": "outside lower center", "fontsize": 8, "frameon": False, "handlelength": 3}
    for columns in range(min(len(labels), 6), 0, -1):
        made = figure.legend(list(entries.values()), labels, ncols=columns, **options)
        for text in made.get_texts():
            text.set_parse_math(False)
        extent = made.get_window_extent()
        if extent.width <= 0.98 * figure.bbox.width or columns == 1:
            break
        made.remove()
    width, height = figure.get_size_inches()
    figure.set_size_inches(max(width, 1.03 * extent.width / figure.dpi), height + extent.height / figure.dpi)


def png(figure: Figure) -> bytes:
    """Draw a figure."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a letter that the font lacks is a box
        figure.savefig(buffer := io.BytesIO(), dpi=DPI, format="png")
    return buffer.getvalue()


def shortened(text: str, most: int) -> str:
    """One line of at most this many characters: both ends, which tell names apart."""
    line = " ".join(clean(text).split()) or "(no name)"
    line = line if not line.startswith("_") else "\u200b" + line  # matplotlib leaves out what begins so
    half = (most - 1) // 2
    return line if len(line) <= most else f"{line[:half]}…{line[-half:]}"
