"""pandas in and out: demonstrations from a frame, labels to a frame."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aim_sdk.errors import InputError, unknown
from aim_sdk.files.images import describe
from aim_sdk.files.photo_folders import folder_images
from aim_sdk.injection.classification import Classification, image_of
from aim_sdk.support.dependencies import imported
from aim_sdk.types import Demonstration


def demonstrations_from(
    frame: Any,
    *,
    image: str = "image",
    text: str | None = "text",
    answer: str = "answer",
    same_text: str | None = None,
    metadata: Iterable[str] = (),
) -> list[Demonstration]:
    """One demonstration per row of a table.

    Args:
        frame: what gives a column by its name (a frame of pandas or polars, a dict of lists), or a dict for each row
            (a list of them, a `csv.DictReader`).
        image, text, answer: the names of the columns; `text=None`: the images have no text. A number is an
            answer as it is written (1 is `"1"`, 1.0 is `"1.0"`); a missing text stays missing.
        same_text: the same text for every image, instead of a column.
        metadata: columns whose cells become metadata; missing cells are left out.

    Raises:
        InputError: there is no such column, or a row is not a demonstration; it names the row, counted from 0.
    """
    text, frame = None if same_text is not None else text, _by_column(frame)
    names, kept = [image, *([] if text is None else [text]), answer], list(metadata)
    if text is not None and image in (there := _names(frame)) and text not in there:
        raise InputError(
            f"{_no_column(frame, text)}\n"
            "Next: pass text=None if the images have no text, or same_text='...' for one text for all of them."
        )
    columns = {name: _column(frame, name) for name in [*names, *kept]}
    if len(lengths := {len(column) for column in columns.values()}) > 1:
        raise InputError(f"the columns have different lengths: {', '.join(map(str, sorted(lengths)))}.")
    made = []
    for row in range(lengths.pop()):
        fields = {name: columns[name][row] for name in kept}
        asked = "" if text is None or _missing(columns[text][row]) else columns[text][row]
        try:
            made.append(
                Demonstration(
                    columns[image][row],
                    asked if same_text is None else same_text,
                    _answer(columns[answer][row]),
                    {name: value for name, value in fields.items() if not _missing(value)},
                )
            )
        except InputError as error:
            raise type(error)(f"row {row}: {error}") from error
    return made


def to_frame(classifications: Sequence[Classification], images: Iterable[Any] | Path | None = None) -> Any:
    """A pandas frame with one row per label.

    Columns: `image`, `label`, `probability`, `p(CHOICE)` of each choice, `prompt_tokens`,
    `error`. The index is that of `images`, if they have one.

    Args:
        classifications: what `pipe.classify` returned.
        images: what it was given, as many, or the folder; None: the images that the labels know.

    Raises:
        MissingDependencyError: pandas is not installed.
        InputError: the numbers of images and labels differ, or an image is not the one that has the label.
    """
    pandas = imported("pandas", extra="pandas")
    if isinstance(images, str | os.PathLike):
        if not os.path.isdir(images):
            raise InputError(f"to_frame: images is a {type(images).__name__}; expected the images that were labelled.")
        images = list(map(str, folder_images(Path(images))))
    known = [one.image for one in classifications]
    given = None if images is None else [image_of(one) for one in images]
    shown = given if given is not None else known if any(one is not None for one in known) else None
    if shown is not None and len(shown) != len(classifications):
        raise InputError(f"to_frame: {len(classifications)} labels, but {len(shown)} images.")
    for row, (one, other) in enumerate(zip(known, shown or (), strict=False)):
        if one is not None and not _same(one, other):
            raise InputError(
                f"to_frame: row {row}: the label is that of {describe(one)}, but the image is {describe(other)}; "
                "expected the images in the order in which they were labelled.\n"
                "Next: leave `images` out: every label knows its image."
            )
    rows = [
        {
            **({} if shown is None else {"image": shown[place]}),
            "label": one.label,
            "probability": one.probability,
            **{f"p({choice})": value for choice, value in one.probabilities.items()},
            "prompt_tokens": one.prompt_tokens,
            "error": one.error,
        }
        for place, one in enumerate(classifications)
    ]
    index = getattr(images, "index", None)
    made = pandas.DataFrame(rows, index=None if index is None or callable(index) else index)
    last = [name for name in ("prompt_tokens", "error") if name in made]
    return made[[name for name in made if name not in last] + last]


def _same(labelled: Any, given: Any) -> bool:
    """Whether two are the same image: the same file, however its path is written, or the same pixels or bytes."""
    if isinstance(labelled, str | os.PathLike) and isinstance(given, str | os.PathLike):
        return os.path.abspath(labelled) == os.path.abspath(given)
    return labelled is given or (_missing(labelled) and _missing(given)) or (labelled == given) is True


def _by_column(frame: Any) -> Any:
    """Rows as columns; what has columns already unchanged."""
    if isinstance(frame, Mapping) or hasattr(frame, "columns") or not isinstance(frame, Iterable):
        return frame
    rows = list(frame)
    if other := [row for row in rows if not isinstance(row, Mapping)]:
        raise InputError(
            f"the table is a {type(frame).__name__} of {type(other[0]).__name__}; expected a frame, a dict of "
            "lists, or a list with a dict for each row."
        )
    return {name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)}


def _names(frame: Any) -> list[Any]:
    return list(getattr(frame, "columns", frame))


def _no_column(frame: Any, name: str) -> str:
    return unknown("column", name, map(str, _names(frame)))


def _column(frame: Any, name: str) -> list[Any]:
    if name not in _names(frame):
        raise InputError(_no_column(frame, name))
    return list(frame[name])


def _missing(value: Any) -> bool:
    """Whether a cell holds nothing: None, NaN, or what pandas has for such."""
    return value is None or type(value).__name__ in ("NAType", "NaTType") or (value != value) is True


def _answer(value: Any) -> Any:
    if _missing(value):
        raise InputError(f"the answer is missing ({value}).")
    value = value.item() if getattr(value, "shape", None) == () else value  # a number of numpy's
    return str(value) if isinstance(value, int | float) else value
