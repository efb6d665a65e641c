"""A box in an image."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, Final

from aim_sdk.errors import InputError

SIDES: Final = ("x1", "y1", "x2", "y2")
_SHOWN: Final = 60
"""How many characters of a value a message shows."""
_NO_TEXT: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
"""Control characters, which line breaks are among, the two separators of lines, and halves of surrogate pairs."""


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in an image, and what is in it.

    Coordinates are shares of the image's width and height as it is shown (turned as its EXIF data says): (0, 0) is its
    upper left corner, (1, 1) the lower right one.

    Args:
        x1, y1: the upper left corner: real numbers of any kind, also of numpy or torch. They are kept as floats.
        x2, y2: the lower right corner.
        label: what the box holds, in one line; blanks around it are dropped. Empty if nothing is said.

    Raises:
        InputError: a coordinate is not a number in 0..1, the corners are not in this order, or the label has line
            breaks or other control characters.
    """

    x1: float
    y1: float
    x2: float
    y2: float
    label: str = ""

    def __post_init__(self) -> None:
        for name in SIDES:
            object.__setattr__(self, name, _share(name, getattr(self, name)))
        if not (self.x1 < self.x2 and self.y1 < self.y2):
            raise InputError(
                f"Box: ({self.x1}, {self.y1}), ({self.x2}, {self.y2}); expected the upper left corner, then the lower "
                "right one: x1 < x2 and y1 < y2."
            )
        if not isinstance(self.label, str):
            raise InputError(f"Box: `label` is {type(self.label).__name__}; expected a string.")
        if (found := _NO_TEXT.search(self.label)) is not None:
            raise InputError(
                f"Box: the label {said(self.label)} holds {_named(found[0][0])}; expected one line of text."
            )
        object.__setattr__(self, "label", str(self.label.strip()))

    def iou(self, other: Box) -> float:
        """The area that both boxes cover over the area that either covers, from 0 to 1; labels do not matter.

        Raises:
            InputError: the other one is no `Box`.
        """
        if not isinstance(other, Box):
            raise InputError(f"Box.iou: got {said(other)}; expected a Box.")
        width = max(self.x2, other.x2) - min(self.x1, other.x1)  # of both together: tiny areas would be 0
        height = max(self.y2, other.y2) - min(self.y1, other.y1)
        across = max(min(self.x2, other.x2) - max(self.x1, other.x1), 0.0) / width
        down = max(min(self.y2, other.y2) - max(self.y1, other.y1), 0.0) / height
        if not (both := across * down):
            return 0.0
        one, two = ((box.x2 - box.x1) / width * ((box.y2 - box.y1) / height) for box in (self, other))
        return both / (one + two - both)


def checked_boxes(given: Iterable[Box]) -> list[Box]:
    """The boxes of any iterable, which is read once.

    Raises:
        InputError: it is none, it has no order, or it holds something else than boxes.
    """
    if isinstance(given, Box):
        raise InputError("boxes: got one Box; expected several. Next: put it into a list, [box].")
    if isinstance(given, str | bytes | Mapping | set | frozenset) or not isinstance(given, Iterable):
        raise InputError(f"boxes: got {said(given)}; expected a list of Box.")
    boxes = list(given)
    for place, box in enumerate(boxes):
        if not isinstance(box, Box):
            raise InputError(f"boxes: number {place} is {said(box)}; expected a Box: Box(x1, y1, x2, y2, label).")
    return boxes


def clean_label(text: str) -> str:
    """A label as a model writes it, in one line: a blank stands where no `Box` may have a character."""
    return _NO_TEXT.sub(" ", text).strip()


def said(value: Any) -> str:
    """A value as a message shows it, with its type unless that is seen."""
    kind = type(value).__name__
    try:
        text = repr(value)
    except ValueError:
        return f"{kind} of thousands of digits"
    text = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
    return text if isinstance(value, str | bytes | int | float) or value is None else f"{kind} {text}"


def _share(name: str, value: Any) -> float:
    if type(value) is float and 0 <= value <= 1:  # most are: the other checks are slow
        return value
    number = value
    if not isinstance(value, Real) and hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        number = value.item()  # a scalar of numpy or torch
    real = isinstance(number, Real) and not isinstance(number, bool)
    if not real or not 0 <= number <= 1:
        advice = " Pixels? Divide x by the image's width and y by its height." if real and number > 1 else ""
        raise InputError(f"Box: {name} is {said(value)}; expected a share of the image's side, from 0 to 1.{advice}")
    return float(number)


def _named(character: str) -> str:
    code = f"U+{ord(character):04X}"
    if "\ud800" <= character <= "\udfff":
        return f"{code}, half of a surrogate pair, which is no character"
    if character in "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029":
        return f"{code}, a line break"
    return f"{code}, a control character"
