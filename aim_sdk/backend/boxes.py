"""Boxes in an image, and how an answer's text writes them: notations as data that any backend can be given."""

from __future__ import annotations

import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from string import Formatter
from typing import Any, Final, TypeAlias

from aim_sdk.backend.box import SIDES, Box, checked_boxes, clean_label, said
from aim_sdk.errors import InputError

Steps: TypeAlias = tuple[int, int]
"""How many steps a notation divides an image into, across and down."""


class Notation(ABC):
    """How boxes are written. What is read is exactly what was written, up to the notation's steps."""

    marks: tuple[str, ...]
    """What no label can hold: it would end it, or begin another box."""
    steps: int | None
    """Steps of each side; None: they depend on the image, or on the model's processor."""

    def write(self, boxes: Iterable[Box], steps: Steps) -> str:
        """Write boxes, in their order; one that is smaller than a step becomes a step wide.

        Raises:
            InputError: there are none, something is no `Box`, or a label holds a mark of the notation.
        """
        if not (boxes := checked_boxes(boxes)):
            raise InputError("no boxes to write. Next: answer in words of your own, such as 'none'.")
        for box in boxes:
            self.check_label(box.label)
        return self._written(boxes, steps)

    def read(self, text: str, steps: Steps) -> list[Box]:
        """Find the boxes of an answer, in their order. What is not a whole box of the image is left out.

        Raises:
            InputError: it is no string.
        """
        if not isinstance(text, str):
            advice = " Next: pass its `.text`." if isinstance(getattr(text, "text", None), str) else ""
            raise InputError(f"boxes are read from an answer's text; got {said(text)}.{advice}")
        return self._read(text, steps)

    def check_label(self, label: str) -> None:
        """Refuse a label that would not be read as it was written.

        Raises:
            InputError: it holds a mark of the notation.
        """
        for mark in self.marks:
            if mark in label:
                raise InputError(f"the label {label!r} holds {mark!r}, which is a mark of this notation.")

    @abstractmethod
    def _written(self, boxes: Sequence[Box], steps: Steps) -> str: ...

    @abstractmethod
    def _read(self, text: str, steps: Steps) -> list[Box]: ...


def to_steps(box: Box, steps: Steps, last: int, edge: int | None = None) -> tuple[int, int, int, int]:
    """The nearest steps of a box's corners.

    Args:
        box: the box.
        steps: across and down.
        last: by how much less than all steps the largest number is.
        edge: the same for a box that has no width or height otherwise.
    """
    (x1, x2), (y1, y2) = (
        _apart(round(low * count), round(high * count), count - last, count - (last if edge is None else edge))
        for low, high, count in ((box.x1, box.x2, steps[0]), (box.y1, box.y2, steps[1]))
    )
    return x1, y1, x2, y2


def _apart(low: int, high: int, largest: int, edge: int) -> tuple[int, int]:
    low, high = min(low, largest), min(high, largest)
    if low < high:
        return low, high
    return (low, low + 1) if low < edge else (edge - 1, edge)


def from_steps(numbers: Sequence[float], steps: Steps, label: str) -> Box | None:
    """The box of four numbers, its label in one line; None if they are not one inside the image."""
    x1, y1, x2, y2 = numbers
    try:
        return Box(x1 / steps[0], y1 / steps[1], x2 / steps[0], y2 / steps[1], clean_label(label))
    except (InputError, OverflowError):
        return None


@dataclass(frozen=True)
class MarkedBoxes(Notation):
    """Boxes between marks: neighbours with the same label make a group, and the label is written once."""

    box: str
    """A box, with {x1}, {y1}, {x2}, {y2}."""
    group: str
    """Boxes with their label, with {label} and {boxes}."""
    label: str
    """What is written for a label, with {label}; nothing if it is empty."""
    between: str
    """Between the boxes of a group."""
    after: str
    """Between groups."""
    marks: tuple[str, ...]
    steps: int | None
    last: int = 0
    """By how much less than all steps the largest number is."""
    alone: bool = False
    """Whether each box has a group of its own."""

    def _read(self, text: str, steps: Steps) -> list[Box]:
        found = (
            self.box_of({name: int(number) for name, number in box.groupdict().items()}, steps, group["label"] or "")
            for group in self._group_pattern.finditer(text)
            for box in self._box_pattern.finditer(group["boxes"])
        )
        return [box for box in found if box is not None]

    def _written(self, boxes: Sequence[Box], steps: Steps) -> str:
        groups = [[box] for box in boxes] if self.alone else [list(same) for _, same in groupby(boxes, _label)]
        return self.after.join(self._group(group, steps) for group in groups)

    def _group(self, boxes: Sequence[Box], steps: Steps) -> str:
        label = boxes[0].label
        return self.group.format(
            label=label and self.label.format(label=label),
            boxes=self.between.join(self.box.format(**self.numbers_of(box, steps)) for box in boxes),
        )

    def numbers_of(self, box: Box, steps: Steps) -> Mapping[str, int]:
        """The numbers of a box by their names in `box`."""
        return dict(zip(SIDES, to_steps(box, steps, self.last), strict=True))

    def box_of(self, numbers: Mapping[str, int], steps: Steps, label: str) -> Box | None:
        """The box of such numbers; None if they are none."""
        return from_steps([numbers[name] for name in SIDES], steps, label)

    @cached_property
    def _box_pattern(self) -> re.Pattern[str]:
        """Blanks may stand between all parts."""
        parts: list[str] = []
        for literal, name, _, _ in Formatter().parse(self.box):
            parts += [re.escape(part) for part in re.findall(r"<[^\s{}]*|\S", literal)]
            parts += [f"(?P<{name}>[0-9]{{1,6}})"] if name else []
        return re.compile(r"\s*".join(parts))

    @cached_property
    def _group_pattern(self) -> re.Pattern[str]:
        one = re.sub(r"\?P<\w+>", "?:", self._box_pattern.pattern)
        boxes = one if self.alone else rf"{one}(?:\s*{re.escape(self.between.strip())}\s*{one})*"
        held = "".join(f"(?!{re.escape(mark)})" for mark in self.marks)
        label = _pattern(self.label, {"label": rf"(?P<label>(?:{held}.)*)"})
        end = re.escape(self.group.rpartition("}")[2].strip())
        whole = _pattern(self.group, {"label": f"(?:{label})?", "boxes": f"(?P<boxes>{boxes})"}).removesuffix(end)
        return re.compile(rf"{whole}(?:{end}|(?![\s\S]*{end}))")  # a group that is cut keeps its whole boxes


def _label(box: Box) -> str:
    return box.label


def _pattern(template: str, fields: Mapping[str, str]) -> str:
    parts = []
    for literal, name, _, _ in Formatter().parse(template):
        parts += [re.escape(literal.strip()), fields[name] if name else ""]
    return r"\s*".join(filter(None, parts))


@dataclass(frozen=True, slots=True)
class JsonBoxes(Notation):
    """A JSON list on one line, an object for each box; read in any layout, also in a code block."""

    steps: int | None
    last: int = 0
    """By how much less than all steps the largest number is; a box at the edge that is thinner has all steps."""
    marks: tuple[str, ...] = ()
    key: str = "bbox_2d"

    def _read(self, text: str, steps: Steps) -> list[Box]:
        return [box for item in _objects(text) if (box := self._read_one(item, steps)) is not None]

    def _written(self, boxes: Sequence[Box], steps: Steps) -> str:
        items = [
            {self.key: to_steps(box, steps, self.last, edge=0)} | ({"label": box.label} if box.label else {})
            for box in boxes
        ]
        return json.dumps(items, ensure_ascii=False)

    def _read_one(self, item: Mapping[str, Any], steps: Steps) -> Box | None:
        numbers, label = item.get(self.key), item.get("label")
        if not isinstance(numbers, list) or len(numbers) != 4:
            return None
        if not all(type(number) in (int, float) and math.isfinite(number) for number in numbers):
            return None
        return from_steps(numbers, steps, str(label) if type(label) in (str, int, float) else "")


_DECODER: Final = json.JSONDecoder()


def _objects(text: str) -> Iterator[Mapping[str, Any]]:
    """The JSON objects of a text, wherever they stand in others and in lists."""
    place = 0
    while (opening := re.compile(r"[\[{]").search(text, place)) is not None:
        place = opening.start() + 1
        try:
            value, place = _DECODER.raw_decode(text, opening.start())
        except (ValueError, RecursionError):  # not JSON, or cut: what is whole inside it counts
            continue
        waiting = [value]
        while waiting:
            value = waiting.pop()
            if isinstance(value, dict):
                yield value
                value = list(value.values())
            waiting += reversed(value) if isinstance(value, list) else ()
