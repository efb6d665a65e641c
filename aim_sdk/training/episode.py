"""What a projector learns from: demonstrations, a query, and its answer."""

from __future__ import annotations

from dataclasses import dataclass

from aim_sdk.types import Demonstration, ImageInput, Query


@dataclass(frozen=True, slots=True)
class Episode:
    """Demonstrations, a query after them, and the answer whose tokens are learnt.

    A demonstration's ``metadata["id"]`` names its content: equal ids, equal readings.
    """

    demonstrations: tuple[Demonstration, ...]
    query: Query
    answer: str
    document: str
    pictures: tuple[ImageInput, ...] = ()
    """Of each demonstration, the page's image that it shows a view of."""
    names: tuple[str, ...] = ()
    """The new names among which the answer is the right one; none if the answer is the page's own text."""
    key: str | None = None
    """Names the content: equal keys, equal episodes. None if its images are drawn again each time."""
