"""A decoded image of any mode, as RGB in 8 bits: in strips, so that a large one is never held three times."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import PIL.Image
import PIL.ImageOps
from PIL.Image import Transpose

from aim_sdk.errors import ImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

_STRIP: Final = 1 << 22
"""Pixels that are converted at a time."""

_ORIENTATION: Final = 0x0112
_TURNS: Final = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
_BITS: Final = 0x0102
_PHOTOMETRIC: Final = 0x0106
_WHITE_IS_ZERO: Final = 0
"""Of 8 bits, Pillow turns such an image itself."""
_SIXTEEN_BITS: Final = 65_535


def turn(image: Image) -> Transpose | None:
    """How the image is to be turned by its EXIF data. Odd data around an intact picture turn nothing."""
    try:
        return _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:
        return None


def to_rgb(image: Image) -> Image:
    """A new RGB image without EXIF data and the like: transparency on white, high-range greys scaled.

    Raises:
        ImageError: integers or floats without a known range.
    """
    top = _top(image)
    inverted = top is not None and getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    if top is None and not image.has_transparency_data and image.mode != "RGBa":
        rgb = image.convert("RGB")
        rgb.info = {}
        return rgb
    rgb = PIL.Image.new("RGB", image.size)
    for row, strip in strips(image):
        part = _on_white(strip) if top is None else _scaled(strip, top)
        rgb.paste(PIL.ImageOps.invert(part) if inverted else part, (0, row))
    return rgb


def strips(image: Image) -> Iterator[tuple[int, Image]]:
    """The image in strips of whole rows, each with the row where it starts."""
    rows = max(1, _STRIP // image.width)
    if rows >= image.height:
        yield 0, image
        return
    for row in range(0, image.height, rows):
        yield row, image.crop((0, row, image.width, min(row + rows, image.height)))


def _on_white(image: Image) -> Image:
    key = image.info.get("transparency")
    if isinstance(key, tuple) and max(key) > 255:  # of a PNG with 16 bits, of which Pillow keeps the upper 8
        image = image.copy()
        image.info["transparency"] = tuple(value >> 8 for value in key)
    rgba = image.convert("RGBA")
    return PIL.Image.alpha_composite(PIL.Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _top(image: Image) -> float | None:
    """The value of white in a mode of more than 8 bits; None: 8 bits."""
    if image.mode == "F":
        return 1.0
    if image.mode.startswith("I;16"):
        bits = getattr(image, "tag_v2", {}).get(_BITS)
        return 4_095 if bits == (12,) else _SIXTEEN_BITS
    if image.mode == "I":
        if image.format not in ("PNG", "PPM"):  # which have 16 bits at most
            raise ImageError("32-bit integers have no known range; scale them to 8 or 16 bits.")
        return _SIXTEEN_BITS
    return None


def _scaled(image: Image, top: float) -> Image:
    import numpy as np

    values: NDArray[np.number] = np.asarray(image)
    low, high = values.min(), values.max()
    if not np.isfinite(values).all():
        raise ImageError("some values are NaN or infinite; replace them first.")
    if not (low >= 0 and high <= top):
        raise ImageError(f"values from {low:g} to {high:g}; expected 0 to {top:g}. Scale them to 8 bits.")
    grey = (values.astype(np.float32) * (255 / top) + 0.5).astype(np.uint8)
    if isinstance(key := image.info.get("transparency"), int):
        grey[values == key] = 255
    return PIL.Image.fromarray(grey)
