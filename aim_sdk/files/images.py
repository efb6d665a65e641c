"""Images are untrusted: every one enters through `load_image`, which decodes it whole or says what is wrong.

The limits are the constants of this module. To use others, set them before the first image is loaded, in every process:
``aim_sdk.files.images.MAX_PIXELS = 150_000_000``.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from aim_sdk.errors import ImageError
from aim_sdk.types import LazyImage

if TYPE_CHECKING:
    from PIL.Image import Image

    from aim_sdk.types import ImageInput

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
"""What is decoded, by Pillow's names (PPM: also PGM, PBM, PFM). None of these decoders starts a program or opens
another file; Pillow has others that do (EPS calls Ghostscript) and that fail in ways of their own (DDS, BLP, SPIDER).
Of an animation the first frame is taken."""

MAX_FILE_BYTES = 200_000_000
"""Larger files are refused before they are read."""

MAX_PIXELS = 100_000_000
"""Larger images are refused before they are decoded (a decompression bomb is a small file with a huge size). Of JPEG
2000, whose decoder needs twice the memory, half as many are accepted."""

MAX_SIDE = 65_535
"""The longest width or height in pixels, that of JPEG."""

MAX_ASPECT = 200
"""How many times as long as the other a side may be: processors scale the short side to hundreds of pixels."""

MAX_READS = 1_000_000
"""How many parts a file may be read in: it can consist of millions of empty ones."""

MAX_SCANNED_PIXELS = 3_000_000_000
"""Pixels times scans of a progressive JPEG: a scan of a few bytes passes over the whole image (usual are 10 scans)."""

MAX_TEXT_BYTES = 5_000_000
"""The largest file of a plain PPM, PGM or PBM, which is text and takes a microsecond per number."""

MAX_TILE_PIXELS = 1 << 24
"""The largest tile of a TIFF whose image is smaller."""

_TILE_WIDTH, _TILE_LENGTH = 0x0142, 0x0143


class KeptImage(bytes):
    """An image file that a bank keeps, with the digest of what was given: of a PIL image it is that of its pixels.

    So a demonstration that a bank gives back is still known as the one that it is.
    """

    digest: str

    def __new__(cls, file: bytes, digest: str) -> Self:
        made = super().__new__(cls, file)
        made.digest = digest
        return made

    def __getnewargs__(self) -> tuple[bytes, str]:  # type: ignore[override]
        return bytes(self), self.digest


def load_image(source: ImageInput) -> Image:
    """Decode an image (a path, the bytes of its file, a PIL image, a lazy one) to RGB, turned as its EXIF data says.

    Transparency is composed on white. Grey values of 16 bits and floats in 0..1 are scaled to 8 bits; a PIL image is
    left as it is. Besides the file, this needs about 9 bytes per pixel at a time (AVIF 12, WebP 17, JPEG 2000 25).

    Raises:
        ImageError: missing, not a regular file, not an image of ``FORMATS``, truncated or damaged, without pixels, over
            one of the limits, of values without a known range, or an address (see `aim_sdk.fetch_image`).
    """
    from aim_sdk.files.pixels import to_rgb, turn

    data = _data(source)
    with _named(source):
        image = _opened(data)
        _load(image)  # before the EXIF data, whose faults are forgiven
        method = turn(image)
        image = to_rgb(image)  # the decoded file goes before a turned copy is made
        return image if method is None else image.transpose(method)


def image_digest(source: ImageInput) -> str:
    """SHA-256 of an image's content: the file's bytes, or size and RGB pixels of what `load_image` gives.

    Raises:
        ImageError: the file cannot be read, or the PIL image cannot be loaded.
    """
    from aim_sdk.files.pixels import strips

    if isinstance(source, KeptImage):
        return source.digest
    data = _data(source)
    if isinstance(data, bytes):
        return hashlib.sha256(data).hexdigest()
    image = load_image(data)
    digest = hashlib.sha256(f"{image.mode} {image.size} ".encode())
    for _, strip in strips(image):
        digest.update(strip.tobytes())
    return digest.hexdigest()


def image_size(source: ImageInput) -> tuple[int, int]:
    """Width and height as the file's header says, within the limits, without decoding or turning it.

    Raises:
        ImageError: as `load_image`, as far as the header tells.
    """
    data = _data(source)
    with _named(source):
        return _opened(data).size


def read_image_file(path: str | os.PathLike[str]) -> bytes:
    """The bytes of an image file that is a regular file; a FIFO or a device is refused without waiting for it.

    Raises:
        ImageError: missing, not a regular file, over ``MAX_FILE_BYTES``, unreadable, or not a path.
    """
    name = describe(path)
    if path == "":
        raise ImageError("the path of an image is empty; expected the path of an image file.")
    if is_url(path):
        raise ImageError(f"{name}: an address is opened only on request; pass image=aim_sdk.fetch_image(url).")
    if isinstance(path, str) and path[:5].lower() == "data:":
        raise ImageError(f"{name}: a data URI is not a path; pass base64.b64decode(uri.partition(',')[2]).")
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise ImageError(f"{name}: not a regular file (a pipe, a device or a folder); expected an image file.")
            if found.st_size > MAX_FILE_BYTES:
                raise ImageError(f"{name}: {found.st_size} bytes; at most {MAX_FILE_BYTES} are accepted.")
            return file.read(found.st_size)
    except FileNotFoundError as error:
        raise ImageError(f"{name}: no such file.") from error
    except OSError as error:
        raise ImageError(f"{name}: cannot be read ({error.strerror or error}).") from error
    except MemoryError as error:
        raise ImageError(f"{name}: not enough memory for it.") from error
    except ImageError:
        raise
    except ValueError as error:  # a NUL, or half a surrogate pair
        raise ImageError(f"{name}: not a path ({error}).") from error


def is_url(source: object) -> bool:
    """Whether ``source`` is an http(s) address."""
    return isinstance(source, str) and source.lower().startswith(("http://", "https://"))


def describe(source: object) -> str:
    """A short name of an image for messages: printable, without the content of a data URI."""
    if isinstance(source, bytes):
        return f"image of {len(source)} bytes"
    if not isinstance(source, str | os.PathLike):
        import PIL.Image

        if isinstance(source, PIL.Image.Image):
            return f"PIL image {source.width} x {source.height}"
        return _printable(repr(source)) if isinstance(source, LazyImage) else f"image of type {type(source).__name__}"
    text = os.fsdecode(source)
    if text[:5].lower() == "data:":
        return f"{_printable(text.partition(',')[0][:60])},... ({len(text)} characters)"
    return _printable(text if len(text) <= 400 else f"{text[:200]}...{text[-100:]} ({len(text)} characters)")


class _Metered(io.BytesIO):
    """A file that can be read only so often and so much: headers can name the same part thousands of times."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._reads, self._bytes = MAX_READS, 8 * len(data) + 1_000_000

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self._reads -= 1
        self._bytes -= len(data)
        if self._reads < 0 or self._bytes < 0:
            raise OSError("it has too many parts")
        return data


def _data(source: ImageInput) -> bytes | Image:
    import PIL.Image

    if isinstance(source, bytes | PIL.Image.Image):
        return source
    if isinstance(source, str | os.PathLike):
        return read_image_file(source)
    if isinstance(source, LazyImage):
        return source.image_file()
    raise ImageError(
        f"{describe(source)}: expected a path, the bytes of an image file or a PIL image; "
        "convert an array with PIL.Image.fromarray(array), other bytes with bytes(data)."
    )


def _opened(data: bytes | Image) -> Image:
    """The image, its header read and its limits checked, nothing decoded."""
    import PIL.Image

    if not isinstance(data, bytes):
        # A file that PIL opened and did not decode yet. Its own check of the format is up to the caller.
        if getattr(data, "tile", None) and data.format not in (*FORMATS, "MPO"):
            raise ImageError(f"{data.format} is not decoded here; call its load() first if you trust the file.")
        _check_size(*data.size, MAX_PIXELS)
        return data
    if len(data) > MAX_FILE_BYTES:
        raise ImageError(f"at most {MAX_FILE_BYTES} bytes are accepted.")
    if len(data) > MAX_TEXT_BYTES and data[:2] in (b"P1", b"P2", b"P3"):
        raise ImageError(f"plain PPM; at most {MAX_TEXT_BYTES} bytes are accepted. Save it as binary PPM, or as PNG.")
    image = PIL.Image.open(_Metered(data), formats=FORMATS)
    _check_size(*image.size, MAX_PIXELS // 2 if image.format == "JPEG2000" else MAX_PIXELS)
    pixels = image.width * image.height
    scans = data.count(b"\xff\xda") if "progressive" in image.info else 1
    if scans * pixels > MAX_SCANNED_PIXELS:
        raise ImageError(f"{scans} scans of {image.width} x {image.height} pixels; save it again as an ordinary JPEG.")
    tags = getattr(image, "tag_v2", {})
    if (tile := tags.get(_TILE_WIDTH, 0) * tags.get(_TILE_LENGTH, 0)) > max(pixels, MAX_TILE_PIXELS):
        raise ImageError(f"{tile} pixels in a tile of {pixels} pixels' image; at most {MAX_TILE_PIXELS} are accepted.")
    return image


def _load(image: Image) -> None:
    try:
        image.load()
    except Exception:
        image.close()  # otherwise the next load of the same PIL image would return the part decoded so far
        raise


def _check_size(width: int, height: int, most: int) -> None:
    found = f"{width} x {height} pixels"
    if min(width, height) < 1:
        raise ImageError(f"{found}; an image has at least one.")
    if width * height > most:
        raise ImageError(f"{found}; at most {most} are accepted. Scale it down.")
    if max(width, height) > min(MAX_SIDE, MAX_ASPECT * min(width, height)):
        raise ImageError(f"{found}; a side has at most {MAX_SIDE}, and at most {MAX_ASPECT} times the other. Crop it.")


@contextmanager
def _named(source: ImageInput) -> Iterator[None]:
    """Whatever a decoder raises becomes an ImageError that names the image; Pillow's warnings say nothing more."""
    import PIL

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\b")
            yield
    except ImageError as error:
        raise ImageError(f"{describe(source)}: {error}") from error
    except PIL.Image.DecompressionBombError as error:
        raise ImageError(
            f"{describe(source)}: a decompression bomb; at most {MAX_PIXELS} pixels are accepted ({error})."
        ) from error
    except PIL.UnidentifiedImageError as error:
        raise ImageError(
            f"{describe(source)}: not an image that can be read, or damaged; expected {', '.join(FORMATS)}."
        ) from error
    except MemoryError as error:
        raise ImageError(f"{describe(source)}: not enough memory for it.") from error
    except Exception as error:
        reason = _printable(str(error)) or type(error).__name__
        raise ImageError(f"{describe(source)}: truncated or unreadable ({reason}).") from error


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0))


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
