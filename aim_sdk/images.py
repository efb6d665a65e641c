"""Images are untrusted: every one enters through :func:`load_image`, which decodes it whole or says what is wrong."""

from __future__ import annotations

import hashlib
import io
import os
import urllib.request
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from aim_sdk.errors import ImageError

if TYPE_CHECKING:
    from PIL.Image import Image

    from aim_sdk.types import ImageInput

MAX_PIXELS = 100_000_000
"""Larger images are refused before they are decoded (a decompression bomb is a small file with a huge size)."""

MAX_DOWNLOAD_BYTES = 50_000_000


def load_image(source: ImageInput) -> Image:
    """Decode a path, the bytes of an image file, or a PIL image, to RGB (transparency is put on white).

    Raises:
        ImageError: missing, not an image, truncated, over ``MAX_PIXELS``, or an address (see :func:`fetch_image`).
    """
    import PIL.Image

    name = describe(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)  # our own limit stands below
            image = source if isinstance(source, PIL.Image.Image) else PIL.Image.open(_open(source))
        if image.width * image.height > MAX_PIXELS:
            raise ImageError(
                f"{name}: {image.width} x {image.height} pixels; at most {MAX_PIXELS} are accepted. Scale it down."
            )
        return _to_rgb(image)
    except ImageError:
        raise
    except PIL.Image.DecompressionBombError as error:
        raise ImageError(
            f"{name}: a decompression bomb; at most {MAX_PIXELS} pixels are accepted ({error})."
        ) from error
    except PIL.UnidentifiedImageError as error:
        raise ImageError(f"{name}: not an image that Pillow can read.") from error
    except FileNotFoundError as error:
        raise ImageError(f"{name}: no such file.") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError(f"{name}: truncated or unreadable ({error}).") from error


def fetch_image(url: str, *, timeout: float = 20.0) -> bytes:
    """Download one image over http(s). Nothing else in the SDK opens an address: this call is the request.

    Raises:
        ImageError: not an http(s) address, unreachable, over ``MAX_DOWNLOAD_BYTES``, or not an image.
    """
    if not is_url(url):
        raise ImageError(f"{url}: expected an http:// or https:// address.")
    try:
        with urllib.request.urlopen(url, timeout=timeout) as response:
            data: bytes = response.read(MAX_DOWNLOAD_BYTES + 1)
    except OSError as error:
        raise ImageError(f"{url}: cannot be downloaded ({error}).") from error
    if len(data) > MAX_DOWNLOAD_BYTES:
        raise ImageError(f"{url}: over {MAX_DOWNLOAD_BYTES} bytes.")
    load_image(data)
    return data


def image_digest(source: ImageInput) -> str:
    """SHA-256 of an image's content: the file's bytes, or a PIL image's mode, size and pixels."""
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    if isinstance(source, str | os.PathLike):
        try:
            return hashlib.sha256(_open(source).read()).hexdigest()
        except FileNotFoundError as error:
            raise ImageError(f"{describe(source)}: no such file.") from error
        except OSError as error:
            raise ImageError(f"{describe(source)}: cannot be read ({error.strerror}).") from error
    header = f"{source.mode} {source.size} ".encode()
    return hashlib.sha256(header + source.tobytes()).hexdigest()


def image_size(source: ImageInput) -> tuple[int, int]:
    """Width and height as the file's header says, without decoding it.

    Raises:
        ImageError: missing, or not an image.
    """
    import PIL.Image

    if isinstance(source, PIL.Image.Image):
        return source.size
    try:
        with warnings.catch_warnings(), PIL.Image.open(_open(source)) as image:
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
            return image.size
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError):
        return load_image(source).size  # which says what is wrong


def is_url(source: object) -> bool:
    """Whether ``source`` is an http(s) address."""
    return isinstance(source, str) and source.lower().startswith(("http://", "https://"))


def describe(source: ImageInput) -> str:
    """A short name of an image for messages."""
    if isinstance(source, bytes):
        return f"image of {len(source)} bytes"
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    return f"PIL image {source.size[0]} x {source.size[1]}"


def _open(source: str | os.PathLike[str] | bytes) -> io.BytesIO:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if is_url(source):
        raise ImageError(f"{source}: an address is opened only on request; pass image=aim_sdk.fetch_image(url).")
    return io.BytesIO(Path(source).read_bytes())


def _to_rgb(image: Image) -> Image:
    import PIL.Image
    import PIL.ImageOps

    image = PIL.ImageOps.exif_transpose(image)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = PIL.Image.new("RGBA", rgba.size, "white")
        return PIL.Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")
