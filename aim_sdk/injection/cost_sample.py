"""Which demonstrations and queries a cost is counted on: real ones, or assumed ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from PIL import Image

from aim_sdk.errors import InputError
from aim_sdk.types import Demonstration, Query

T = TypeVar("T", Demonstration, Query)

TEXT: Final = "What is shown in this image?"
ANSWER: Final = "A lynx in the snow."
SIZE: Final = (640, 480)
COUNTED: Final = 256
"""Demonstrations that are counted, if there are more: those with the longest texts."""
_ASKED: Final = 8
_MOST_PIXELS: Final = 100_000_000


@dataclass(frozen=True, slots=True)
class CostSample:
    """What is counted."""

    demonstrations: Sequence[Demonstration]
    queries: Sequence[Query]
    """At least one."""
    told: str
    """What it is, as a sentence."""
    complete: bool
    """Whether these are all demonstrations that there are."""


def assumed(*, text: str = TEXT, answer: str = ANSWER, size: tuple[int, int] = SIZE) -> CostSample:
    """One demonstration and one query of a text, an answer, and blank images of a size (width, height).

    Raises:
        InputError: the size is none, or the answer is blank.
    """
    width, height = size
    if min(size) < 1 or width * height > _MOST_PIXELS:
        raise InputError(f"image size {width}x{height}: expected at least 1x1 and at most {_MOST_PIXELS:,} pixels.")
    image = Image.new("RGB", size)
    told = f"an assumed demonstration: {width}x{height}, {text!r}, {answer!r}"
    return CostSample([Demonstration(image, text, answer)], [Query(image, text)], told, complete=False)


def of_call(
    shown: Sequence[Demonstration] | None, queries: Sequence[Query], held: Sequence[Demonstration]
) -> CostSample:
    """What a call counts: its own demonstrations, or those that a bank holds, or else an assumed one.

    Args:
        shown: the call's; None takes the bank's.
        queries: the call's.
        held: the bank's.
    """
    given = held if shown is None else shown
    if given or queries:
        return real(given, queries, source="the bank" if shown is None and given else "this call")
    return assumed() if shown is None else replace(assumed(), demonstrations=[], told="an assumed query")


def real(
    demonstrations: Sequence[Demonstration], queries: Sequence[Query] = (), *, source: str, most: int = COUNTED
) -> CostSample:
    """The longest of some demonstrations and queries; without queries, the demonstrations' own images and texts.

    Args:
        demonstrations: at least one, if there are no queries.
        queries: what is asked.
        source: where they come from, for people.
        most: how many demonstrations are counted.
    """
    shown = longest(demonstrations, most)
    asked = longest(queries, _ASKED) or [Query(item.image, item.text) for item in shown[:_ASKED]]
    counted = "" if len(shown) == len(demonstrations) else f", of which the {len(shown)} with the longest texts"
    told = f"the {len(demonstrations):,} demonstrations of {source}{counted}"
    if not demonstrations:
        told = f"the queries of {source}"
    return CostSample(shown, asked, told, complete=len(shown) == len(demonstrations) > 0)


def longest(items: Sequence[T], count: int) -> list[T]:
    """Those with the longest texts; all, in their order, if there are not more."""

    def length(item: Demonstration | Query) -> int:
        return len(item.text) + len(getattr(item, "answer", ""))

    return list(items) if len(items) <= count else sorted(items, key=length, reverse=True)[:count]
