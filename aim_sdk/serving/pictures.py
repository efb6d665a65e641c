"""Pictures of a bank, as a browser shows them."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from typing import Final

from PIL import Image, UnidentifiedImageError

from aim_sdk.files.images import load_image, read_image_file
from aim_sdk.types import ImageInput

_SENT: Final = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif"}
"""Formats that are sent as they are; others become PNG."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An image file, and what it is."""

    data: bytes
    kind: str


def thumbnail(image: ImageInput, pixels: int) -> Picture:
    """An image whose longer side has at most so many pixels."""
    made = load_image(image).convert("RGB")
    made.thumbnail((pixels, pixels), Image.Resampling.LANCZOS)
    return _written(made, "JPEG")


def whole(image: ImageInput) -> Picture:
    """An image file as it was added, if browsers show such files."""
    data = _file(image)
    try:
        with Image.open(io.BytesIO(data)) as opened:
            kind = _SENT.get(opened.format or "")
    except (UnidentifiedImageError, OSError):
        kind = None
    return _written(load_image(image), "PNG") if kind is None else Picture(data, kind)


def _file(image: ImageInput) -> bytes:
    """The bytes of an image file; of a picture without one, a PNG."""
    if isinstance(image, bytes):
        return image
    if isinstance(image, str | os.PathLike):
        return read_image_file(image)
    return _written(load_image(image), "PNG").data


def _written(image: Image.Image, form: str) -> Picture:
    buffer = io.BytesIO()
    image.save(buffer, form, quality=85)
    return Picture(buffer.getvalue(), _SENT[form])
