"""Boxes as backbones write them that have no notation of their own: ``lynx [12, 30, 45, 60]; owl [0, 5, 9, 14]``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from aim_sdk.backend.box import Box, clean_label
from aim_sdk.backend.boxes import Notation, Steps, from_steps, to_steps
from aim_sdk.backend.capabilities import WritesBoxes, find
from aim_sdk.backend.interfaces import Backend
from aim_sdk.errors import InputError
from aim_sdk.types import ImageInput

_NUMBERS: Final = r"\[" + ",".join([r"\s*[0-9]{1,6}\s*"] * 4) + r"\]"
_FOUND: Final = re.compile(rf"\[(?:\s*{_NUMBERS}\s*,?)+|(?P<box>{_NUMBERS})")
"""Boxes in brackets of their own, which are another notation's, or a box."""
_FOREIGN: Final = ('":', "':", "<box>")
"""Before a box of another notation."""
_JOINT: Final = re.compile(r"\A(?:[\s,.&]|and\s)*")
"""Between a box and the next one's label, where no semicolon is."""
_LEADING: Final = re.compile(r"\A(?:[-+>#\u2022\u00b7\u2013\u2014]+\s|[0-9]{1,2}[.)]\s|[\s*])*")
"""Marks and numbers of lists, and of bold type."""
_TRAILING_TURNED: Final = re.compile(r"\A[\s*:]*")


class PlainNotation(Notation):
    """Whole percents of the width and the height: x1, y1, x2, y2; a label is what stands before a box."""

    marks = ("[", "]", ";")
    steps = 100
    last = 0

    def check_label(self, label: str) -> None:
        """See `Notation.check_label`; what is dropped when a label is read cannot be one's beginning or end."""
        super().check_label(label)
        if (read := _tidy(label)) != label or label.endswith(_FOREIGN):
            raise InputError(f"the label {label!r} would be read as {read!r} in this notation: write it without marks.")

    def _written(self, boxes: Sequence[Box], steps: Steps) -> str:
        return "; ".join(f"{box.label} {list(to_steps(box, steps, self.last))}".strip() for box in boxes)

    def _read(self, text: str, steps: Steps) -> list[Box]:
        boxes: list[Box | None] = []
        end = 0
        for found in _FOUND.finditer(text):
            before, end = text[end : found.start()], found.end()
            if found["box"] is None or before.rstrip().endswith(_FOREIGN):
                continue
            numbers = [int(number) for number in re.findall("[0-9]+", found["box"])]
            boxes.append(from_steps(numbers, steps, _label(before, after_box=bool(boxes))))
        return [box for box in boxes if box is not None]


def _label(before: str, *, after_box: bool) -> str:
    """The label in the text between two boxes: of its last line, after the last semicolon or bracket."""
    parts = re.split(r"[;\[\]\n]", before.rstrip())
    if after_box and len(parts) == 1:
        return _tidy(_JOINT.sub("", before))
    return _tidy(parts[-1])


def _tidy(text: str) -> str:
    """A label without the marks of lists and of bold type around it, and without the colon after it."""
    text = _LEADING.sub("", clean_label(text.replace("**", "")))
    return _TRAILING_TURNED.sub("", text[::-1])[::-1]


class PlainBoxes:
    """How boxes are written for a backbone without a notation of its own: ``lynx [12, 30, 45, 60]; owl [0, 5, 9, 14]``.

    Whole percents of the width and the height: x1, y1, x2, y2. Such a backbone learns it from the demonstrations.
    """

    notation: Final = PlainNotation()

    def write_boxes(self, boxes: Iterable[Box], image: ImageInput) -> str:
        """See [`WritesBoxes`][aim_sdk.backend.capabilities.WritesBoxes]."""
        return self.notation.write(boxes, (100, 100))

    def read_boxes(self, text: str, image: ImageInput) -> list[Box]:
        """See [`WritesBoxes`][aim_sdk.backend.capabilities.WritesBoxes]."""
        return self.notation.read(text, (100, 100))


def boxes_of(backend: Backend) -> WritesBoxes:
    """How a backend's answers hold boxes: as its family writes them, or plainly if it has no way of its own."""
    return find(backend, WritesBoxes) or PlainBoxes()
