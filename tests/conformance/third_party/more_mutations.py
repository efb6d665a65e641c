"""More bugs of a third-party adapter: what is declared, drawn, stopped at, and left in the process."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from PIL.Image import Image
from torch import Tensor

from aim_sdk import Demonstration, Generation, load_image
from tests.conformance.third_party.adapter import KiteBackend, KiteInjector, KiteReader
from tests.conformance.third_party.mutations import Part, mutant

# What a call leaves


class SeedsEverybody(KiteInjector):
    def generate(self, *args: Any, **options: Any) -> list[Generation]:
        torch.manual_seed(0)
        return super().generate(*args, **options)


class GradientsOffForGood(KiteInjector):
    def generate(self, *args: Any, **options: Any) -> list[Generation]:
        torch.set_grad_enabled(False)
        return KiteInjector.generate.__wrapped__(self, *args, **options)  # type: ignore[attr-defined, no-any-return]


class DoubleForEverybody(KiteReader):
    def text_only(self, *args: Any, **options: Any) -> Any:
        torch.set_default_dtype(torch.float64)
        return super().text_only(*args, **options)


class QueryImagesKept(KiteInjector):
    """By path, or by the `id` of a picture."""

    kept: ClassVar[dict[object, Tensor]] = {}

    def see(self, queries: Any) -> list[Tensor]:
        keys = [id(q.image) if isinstance(q.image, Image) else str(q.image) for q in queries]
        for key, query in zip(keys, queries, strict=True):
            if key not in self.kept:
                self.kept[key] = self.model.see(load_image(query.image))
        return [self.kept[key] for key in keys]


class ReadImagesKept(KiteReader):
    kept: ClassVar[dict[str, Tensor]] = {}

    def see(self, item: Demonstration) -> Tensor:
        if isinstance(item.image, Image):
            return super().see(item)
        return self.kept.setdefault(str(item.image), super().see(item))


CAUGHT: list[tuple[str, Part]] = [
    ("leaves_the_process_alone", SeedsEverybody),
    ("leaves_the_process_alone", GradientsOffForGood),
    ("leaves_the_process_alone", DoubleForEverybody),
    ("images_are_seen_again", QueryImagesKept),
    ("images_are_seen_again", ReadImagesKept),
]
"""Which check must catch which bug."""


def made(bug: Part) -> KiteBackend:
    """Kite with the bug."""
    return mutant(bug)
