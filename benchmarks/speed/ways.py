"""Ways of showing k demonstrations to a backbone, each timed as one query with a new image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from aim_sdk import Backend, FusedTokens, PromptFormat, Query
from aim_sdk.types import Context
from benchmarks.speed.measure import in_turns, ratio, summary

QUESTION = "What is this?"
ZERO_SHOT = "zero-shot"


@dataclass
class Ways:
    """Asks a backbone about new images, after the first k items of each way's context."""

    backend: Backend
    form: PromptFormat
    images: Iterator[Image.Image]
    contexts: Mapping[str, Context]
    """By way."""

    def answer(self, context: Context) -> int:
        """One token after a context, for a new image; return the positions of the prompt."""
        query = Query(next(self.images), QUESTION)
        (made,) = self.backend.injector.generate([query], [context], prompt_format=self.form, max_new_tokens=1)
        return made.prompt_tokens

    def variant(self, way: str, k: int) -> Callable[[], int]:
        """What is timed."""
        context = self.contexts.get(way, ())[:k]
        return lambda: self.answer(context)


def reusable(name: str, items: Sequence[FusedTokens]) -> list[FusedTokens]:
    """Fused tokens with keys, so that their prefix is kept for later queries."""
    return [replace(item, key=f"{name} {number}") for number, item in enumerate(items)]


def computed_whole(items: Sequence[FusedTokens]) -> list[FusedTokens]:
    """Fused tokens without keys, which every query runs again."""
    return [replace(item, key=None) for item in items]


def of_zero_shot(variants: Mapping[tuple[str, int], Callable[[], int]], rounds: int) -> dict[tuple[str, int], Any]:
    """Latencies by (way, k), and their ratios to zero-shot's of the same round."""
    times = in_turns({str(name): run for name, run in variants.items()}, rounds)
    zero = times[str((ZERO_SHOT, 0))]
    return {name: {**summary(times[str(name)]), "of_zero_shot": ratio(times[str(name)], zero)} for name in variants}
