"""Two images as one, for items that have two: a demonstration of AIM has a single image."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aim_sdk.files.atomic import write_atomic
from aim_sdk.files.images import load_image

if TYPE_CHECKING:
    from PIL.Image import Image

_GAP: Final = 16
"""White columns between the images are the height's 16th part."""


@dataclass(frozen=True, slots=True)
class SideBySide:
    """The path of an image of two images, side by side, which is made when the path is asked for.

    It lies in a temporary folder that goes with the process; the same two files give the same bytes.
    """

    left: str
    right: str

    def __fspath__(self) -> str:
        name = hashlib.sha256(f"{self.left}\n{self.right}".encode(errors="surrogatepass")).hexdigest()
        path = Path(_folder().name, f"{name}.png")
        if not path.exists():
            write_atomic(path, _png(joined(load_image(self.left), load_image(self.right))))
        return str(path)


def joined(left: Image, right: Image) -> Image:
    """Both images in their own size on one white canvas, centred in its height, with a gap between them."""
    import PIL.Image

    height = max(left.height, right.height)
    gap = max(1, height // _GAP)
    canvas = PIL.Image.new("RGB", (left.width + gap + right.width, height), "white")
    canvas.paste(left, (0, (height - left.height) // 2))
    canvas.paste(right, (left.width + gap, (height - right.height) // 2))
    return canvas


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="aim-pairs-")


def _png(image: Image) -> bytes:
    import io

    image.save(file := io.BytesIO(), "PNG")
    return file.getvalue()
