"""Boxes as tasks, journals and metrics hold them, whatever way a backbone writes them: JSON of shares of the sides."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from PIL import Image

from aim_sdk.backend.box import Box, said
from aim_sdk.backend.boxes import JsonBoxes
from aim_sdk.backend.capabilities import WritesBoxes
from aim_sdk.errors import InputError
from aim_sdk.evaluation.items import Item
from aim_sdk.types import ImageInput

NOTHING: Final = "none"
"""What a demonstration answers about an image without boxes."""
_READER: Final = JsonBoxes(steps=1, key="box")
_EXPECTED: Final = (
    'Expected a JSON list, with x1, y1, x2, y2 as shares of the image\'s sides: [{"box": [0.1, 0.25, 0.48, 0.9], '
    '"label": "lynx"}]; [] if nothing is there.'
)


def boxes_text(boxes: Sequence[Box]) -> str:
    """A list of objects: ``[{"box": [0.1, 0.25, 0.48, 0.9], "label": "lynx"}]``: x1, y1, x2, y2; no label if empty."""
    items = [{"box": [box.x1, box.y1, box.x2, box.y2]} | ({"label": box.label} if box.label else {}) for box in boxes]
    return json.dumps(items, ensure_ascii=False)


def boxes_in(text: str) -> list[Box]:
    """The boxes of such a text; what is not a whole box of the image is left out."""
    return _READER.read(text, (1, 1))


def shown_boxes(text: str, image: ImageInput, writes: WritesBoxes) -> str:
    """Such a text as a demonstration shows it: as the backbone writes boxes."""
    boxes = boxes_in(text)
    return writes.write_boxes(boxes, image) if boxes else NOTHING


def check_references(where: str, items: Sequence[Item]) -> None:
    """Refuse items that have a reference of which any box is bad.

    Raises:
        InputError: it says where, and names the item and the box.
    """
    for item in items:
        if item.choices:
            raise InputError(f"{where}, item {item.id!r}: it has `choices`; boxes are generated, not chosen.")
        for answer in item.answers:
            try:
                _check(answer)
            except InputError as error:
                raise InputError(f"{where}, item {item.id!r}: {error} {_EXPECTED}") from error


def check_labels(task: str, items: Sequence[Item], writes: WritesBoxes) -> None:
    """Refuse items with a label that the backbone's notation cannot hold.

    Raises:
        InputError: it names the task, the item and the label.
    """
    first: dict[str, Item] = {}  # of each label
    for item in items:
        for answer in item.answers:
            for box in boxes_in(answer):
                first.setdefault(box.label, item)
    image = Image.new("RGB", (64, 64))  # any: what labels can hold does not depend on it
    for label, item in first.items():
        try:
            writes.write_boxes([Box(0, 0, 1, 1, label)], image)
        except InputError as error:
            raise InputError(f"task {task!r}, item {item.id!r}: {error} Next: change the label in the file.") from error


def _check(answer: str) -> None:
    try:
        value = json.loads(answer)
    except (ValueError, RecursionError):
        raise InputError(f"the answer {said(answer)} is not JSON.") from None
    for number, entry in enumerate(value if isinstance(value, list) else [value]):
        _check_entry(number, entry)


def _check_entry(number: int, entry: Any) -> None:
    sides = entry.get("box") if isinstance(entry, dict) else None
    if not isinstance(sides, list) or len(sides) != 4:
        raise InputError(f"box {number} of its answer is {said(entry)}.")
    x1, y1, x2, y2 = sides
    try:
        Box(x1, y1, x2, y2, entry.get("label", ""))
    except InputError as error:
        raise InputError(f"box {number} of its answer, {said(entry)}: {error}") from error
