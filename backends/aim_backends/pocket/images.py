"""From images to visual tokens, once for each image: queries and demonstrations reappear in many prompts."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from cachetools import LRUCache
from torch import Tensor

from aim_backends.pocket.model import PocketVision
from aim_backends.pocket.vision import VISUAL_TOKENS, preprocess
from aim_sdk.files.images import image_digest
from aim_sdk.types import Context, Demonstration, ImageInput

CAPACITY = 1024
"""Images whose visual tokens are kept: 36 KB each in float32."""


@dataclass(frozen=True, slots=True)
class DecodedImages:
    """Images before their forward, by the hash of their content."""

    digests: list[str]
    """Of each image, in their order."""
    tokens: dict[str, Tensor] = field(repr=False)
    """Visual tokens ``(16, embed)`` that are known already."""
    pixels: dict[str, Tensor] = field(repr=False)
    """What is to be encoded."""


@dataclass(frozen=True, slots=True)
class ShownImages:
    """The demonstrations with their images in some contexts, each once."""

    items: dict[int, Demonstration] = field(repr=False)
    """By identity."""
    images: DecodedImages
    """Of the items, in their order."""


class ImageEncoder:
    """Encodes images in one batch and keeps the visual tokens of the last ``CAPACITY`` by content; thread-safe."""

    def __init__(self, vision: PocketVision) -> None:
        self._vision = vision
        self._kept: LRUCache[str, Tensor] = LRUCache(CAPACITY)
        self._lock = threading.Lock()

    def encode(self, sources: Sequence[ImageInput]) -> list[Tensor]:
        """Return the visual tokens ``(16, embed)`` of each image."""
        return self.run(self.prepare(sources))

    def count(self, source: ImageInput) -> int:
        """Return how many visual tokens an image takes: always as many."""
        return VISUAL_TOKENS

    def prepare(self, sources: Sequence[ImageInput]) -> DecodedImages:
        """Decode the images whose visual tokens are not kept."""
        digests = [image_digest(source) for source in sources]
        with self._lock:
            tokens = {digest: self._kept[digest] for digest in digests if digest in self._kept}
        missing = {d: source for d, source in zip(digests, sources, strict=True) if d not in tokens}
        pixels = {digest: preprocess(source) for digest, source in missing.items()}
        return DecodedImages(digests, tokens, pixels)

    def shown(self, contexts: Sequence[Context], known: ShownImages | None = None) -> ShownImages:
        """Decode the images that demonstrations show, if they are not those that are ``known``."""
        items = {id(item): item for context in contexts for item in context if isinstance(item, Demonstration)}
        if known is not None and known.items.keys() == items.keys():
            return known
        return ShownImages(items, self.prepare([item.image for item in items.values()]))

    def run(self, images: DecodedImages) -> list[Tensor]:
        """Return the visual tokens ``(16, embed)`` of each image, in their order."""
        with self._lock:  # other prompts may have held an image since it was decoded
            known = images.tokens | {digest: self._kept[digest] for digest in images.pixels if digest in self._kept}
        pixels = {digest: found for digest, found in images.pixels.items() if digest not in known}
        tokens = known | dict(zip(pixels, self._vision.encode_pixels(list(pixels.values())), strict=True))
        with self._lock:
            self._kept.update((digest, tokens[digest]) for digest in images.digests)
        return [tokens[digest] for digest in images.digests]
