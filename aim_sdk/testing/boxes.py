"""Boxes come out of an answer as they were written into it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from aim_sdk.backend.box import Box
from aim_sdk.backend.capabilities import HasVocabulary, WritesBoxes, capability, find
from aim_sdk.backend.interfaces import Backend
from aim_sdk.config import PromptFormat
from aim_sdk.testing.compare import require, spelled
from aim_sdk.testing.kit import check, needs
from aim_sdk.testing.samples import PICTURES
from aim_sdk.testing.steering import saying
from aim_sdk.types import Demonstration, ImageInput, Query

_PLAIN = PromptFormat.plain("{image}Q: {text}\nA: {answer}\n")
_TEXT = "Where are they?"
_BOXES: Final = (
    Box(0.0, 0.25, 0.5, 1.0, "a lynx"),
    Box(0.25, 0.0, 1.0, 0.75, "a lynx"),
    Box(0.5, 0.5, 1.0, 1.0, 'the "owl", 7 (of 9): Gr\u00fc\u00dfe'),
    Box(0.0, 0.0, 1.0, 1.0),
    Box(0.75, 0.25, 1.0, 0.5, "it"),
)
"""The same label twice, one with marks of usual notations, no label after a label."""
_FAR = 0.26
"""Farther than a notation's steps may move a corner: a quarter of the image."""


@check
@needs(WritesBoxes)
def check_boxes_are_kept(backend: Backend) -> None:
    """Boxes that are written are read again: from the text, and from an answer that holds it, in images of any shape.

    Catches corners in another order, pixels of the image instead of those that the model sees, labels that move to a
    neighbour, notations whose tokens a demonstration may not hold, and answers that leave these tokens out.
    """
    writer = capability(backend, WritesBoxes)
    for image in PICTURES:
        text = writer.write_boxes(_BOXES, image)
        _require_boxes(writer.read_boxes(text, image), text)
        read = writer.read_boxes(text, image)
        again = writer.write_boxes(read, image)
        require(again == text, f"the boxes of {text!r} are written again as {again!r}")
        for words in ("", "none"):
            found = writer.read_boxes(words, image)
            require(not found, f"{words!r} is read as {found}; expected no box")
        part = text[: len(text) // 2]
        for one in writer.read_boxes(part, image):
            require(
                one in [*read, _bare(one, read)],
                f"{part!r}, a part of an answer, holds {one}; the whole one is read as {read}",
            )
    if find(backend, HasVocabulary) is None:
        return
    for form in (_PLAIN, backend.default_format):
        _require_said(backend, form, PICTURES[0], text=writer.write_boxes(_BOXES[:2], PICTURES[0]))


def _bare(one: Box, read: Sequence[Box]) -> Box | None:
    """The same box with the label that was cut."""
    corners = (one.x1, one.y1, one.x2, one.y2)
    same = (box for box in read if (box.x1, box.y1, box.x2, box.y2) == corners and box.label.startswith(one.label))
    return Box(*corners, one.label) if next(same, None) else None


def _require_boxes(found: Sequence[Box], text: str) -> None:
    require(len(found) == len(_BOXES), f"{len(_BOXES)} boxes are written as {text!r}, and {len(found)} are read")
    require("\n" not in text, f"boxes are written as {text!r}; expected one line, which every format can hold")
    for box, one in zip(_BOXES, found, strict=True):
        moved = max(abs(getattr(box, name) - getattr(one, name)) for name in ("x1", "y1", "x2", "y2"))
        require(moved < _FAR and box.label == one.label, f"{box} is written in {text!r}, and read as {one}")


def _require_said(backend: Backend, form: PromptFormat, image: ImageInput, *, text: str) -> None:
    (reading,) = backend.reader.read([Demonstration(image, _TEXT, text)], prompt_format=form, with_images=False)
    ids = reading.token_ids[reading.answer_start :].tolist()
    with saying(backend, ids):
        (made,) = backend.injector.generate([Query(image, _TEXT)], [[]], prompt_format=form, max_new_tokens=len(ids))
    if list(made.token_ids) != ids[: len(made.token_ids)]:
        return  # the model cannot be made to say it
    writer = capability(backend, WritesBoxes)
    require(
        writer.read_boxes(made.text, image) == writer.read_boxes(text, image),
        f"made to say {text!r}, in {spelled(form)}, it says {made.text!r}, which holds other boxes",
    )
