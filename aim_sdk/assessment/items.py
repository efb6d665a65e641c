"""What an assessment asks: the bank's own demonstrations, each in turn, or those of a validation set."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from aim_sdk.bank import DemonstrationBank
from aim_sdk.errors import ImageError
from aim_sdk.files.images import image_digest
from aim_sdk.types import Demonstration, Query


@dataclass(frozen=True, slots=True)
class Item:
    """One question whose right answer is known."""

    name: str
    """The key of a demonstration of the bank; for a validation set its place in there."""
    query: Query
    answer: str


def items_of(
    bank: DemonstrationBank, validation: Sequence[Demonstration] | None, on_problem: Callable[[str], None]
) -> list[Item]:
    """The demonstrations as questions; one whose image is missing or is another one now is reported and left out.

    Those of the bank are never shown to themselves: same image and text.
    """
    found = list[Item]()
    looks: Iterable[tuple[str, Callable[[], Demonstration]]]
    if validation is None:
        looks = ((entry.key, entry.checked) for entry in bank.values())
    else:
        looks = ((f"#{place}", partial(_there, one)) for place, one in enumerate(validation))
    for name, look in looks:
        try:
            found.append(_item(name, look()))
        except ImageError as error:
            on_problem(f"{name[:12]}: {error}")
    return found


def _there(demonstration: Demonstration) -> Demonstration:
    """The demonstration, if its image can be read."""
    image_digest(demonstration.image)
    return demonstration


def part_of(items: Sequence[Item], limit: int | None, seed: int) -> list[Item]:
    """At most ``limit`` items, in their order: every answer's share stays the same, up to one item."""
    if limit is None or limit >= len(items):
        return list(items)
    rng = random.Random(seed)
    by_answer: dict[str, list[int]] = defaultdict(list)
    for place, item in enumerate(items):
        by_answer[item.answer].append(place)
    for places in by_answer.values():
        rng.shuffle(places)
    # The n-th of m items of an answer comes at (n + a half) / m of the way: a prefix holds every answer's share.
    ranked = sorted(
        ((n + 0.5) / len(places), rng.random(), place)
        for places in by_answer.values()
        for n, place in enumerate(places)
    )
    return [items[place] for place in sorted(place for _, _, place in ranked[:limit])]


def _item(name: str, shown: Demonstration) -> Item:
    found = shown.metadata.get("id")
    return Item(name, Query(shown.image, shown.text, None if found is None else str(found)), shown.answer.strip())
