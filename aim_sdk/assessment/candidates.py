"""The settings that an assessment tries: how demonstrations are used, how many, and who chooses them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from aim_sdk.errors import InputError
from aim_sdk.support.modes import LABELS
from aim_sdk.support.numbers import whole_number
from aim_sdk.types import Mode

SHOTS: Final = (1, 2, 4, 8)
"""Numbers of demonstrations that are tried if none are named."""
BLIND: Final = "random"
"""Chooses texts where images are to play no part: a selector that looks at images tells by its choice what they show,
whatever is shown of them."""
TRIED: Final[tuple[Mode, ...]] = ("nearest", "text-only", "aim", "interleaved")
"""The modes that show demonstrations, the cheapest first."""
_SHORT: Final[dict[Mode, str]] = {
    "nearest": "nearest neighbours",
    "no-image": "AIM without images",
    "text-only": "texts alone",
}


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to answer: a mode with its number of demonstrations, and the selector that chooses them."""

    mode: Mode
    shots: int
    selector: str | None
    """None where nothing is chosen: zero-shot."""

    def __str__(self) -> str:
        if self.mode == "zero-shot":
            return "zero-shot"
        name = _SHORT.get(self.mode, LABELS[self.mode])
        return f"{name}, k={self.shots}" + ("" if self.mode == "nearest" else f", selector {self.selector}")


def candidates(
    modes: Iterable[Mode], shots: Iterable[int], selectors: Sequence[str], *, most_shots: int
) -> list[Candidate]:
    """Every combination, the cheapest first: of equally good ones, the first is recommended.

    Zero-shot is always among them. A vote of the nearest neighbours has no other selector than the readings, and texts
    alone are drawn at random.

    Args:
        modes: what is tried.
        shots: numbers of demonstrations; those over ``most_shots`` are left out.
        selectors: names.
        most_shots: what every query can be shown.

    Raises:
        InputError: a number of shots is not a whole number of at least 1, or none is left.
    """
    asked = sorted({whole_number("shots", one, 1) for one in shots})
    if not most_shots:
        raise InputError(
            "an item has no demonstration to show: all of the bank have its image and its text.\n"
            "Next: add others, or remove the copies."
        )
    counts = [one for one in asked if one <= most_shots]
    if not counts:
        raise InputError(
            f"shots {', '.join(map(str, asked))}: the bank has {most_shots} demonstrations to show to each query.\n"
            f"Next: add more, or pass shots of at most {most_shots}."
        )
    found = [Candidate("zero-shot", 0, None)]
    wanted = set(modes)
    for count in counts:
        for mode in TRIED:
            if mode in wanted:
                found += [Candidate(mode, count, selector) for selector in _selectors(mode, selectors)]
    return found


def _selectors(mode: Mode, named: Sequence[str]) -> Sequence[str]:
    return {"nearest": ["reading"], "text-only": [BLIND]}.get(mode, named)
