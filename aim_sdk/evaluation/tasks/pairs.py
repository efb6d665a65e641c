"""Two images as one, for items that have two: a demonstration of AIM has a single image."""

from __future__ import annotations

import io
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Final

from cachetools import LRUCache, cached

from aim_sdk.files.images import load_image

if TYPE_CHECKING:
    from PIL.Image import Image

_GAP: Final = 16
"""The white gap between the two images is 1/16 of the height."""
_KEPT: Final = 64 << 20
"""Bytes of files kept in memory: an image is read for its digest, its size and its pixels in turn."""


@dataclass(frozen=True, slots=True)
class SideBySide:
    """An image of two images, side by side, which is made when it is needed (a `LazyImage`).

    The same two files give the same bytes.
    """

    left: str
    right: str

    def image_file(self) -> bytes:
        """The bytes of a PNG.

        Raises:
            ImageError: one of the two cannot be decoded.
        """
        return _png(self.left, self.right)


def joined(left: Image, right: Image) -> Image:
    """Both images in their own size on one white canvas, centred in its height, with a gap between them."""
    import PIL.Image

    height = max(left.height, right.height)
    gap = max(1, height // _GAP)
    canvas = PIL.Image.new("RGB", (left.width + gap + right.width, height), "white")
    canvas.paste(left, (0, (height - left.height) // 2))
    canvas.paste(right, (left.width + gap, (height - right.height) // 2))
    return canvas


@cached(LRUCache(_KEPT, getsizeof=len), lock=Lock())
def _png(left: str, right: str) -> bytes:
    joined(load_image(left), load_image(right)).save(file := io.BytesIO(), "PNG")
    return file.getvalue()
