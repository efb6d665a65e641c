"""Files of every format, intact and altered: each is a picture or an ImageError, and takes a moment."""

import io
import random
import struct
import time
import zlib
from contextlib import suppress
from functools import cache

import numpy as np
import pytest
from PIL import Image, ImageDraw

from aim_sdk.errors import ImageError
from aim_sdk.files.images import image_size, load_image

SECONDS = 10
REFUSED = {"BLP", "DDS", "EPS", "ICO", "ICNS", "IM", "MSP", "PCX", "PDF", "PSD", "QOI", "SGI", "SPIDER", "TGA", "XBM"}
REFUSED |= {"BUFR", "FITS", "GRIB", "HDF5", "WMF", "SVG", "XPM", "FLI", "GBR", "SUN"}


def drawing(mode: str, side: int = 40) -> Image.Image:
    image = Image.radial_gradient("L").resize((side, side - 8)).convert("RGB")
    ImageDraw.Draw(image).ellipse((4, 4, 20, 24), "red", "blue")
    if mode == "F":
        return Image.fromarray(np.asarray(image.convert("L"), np.float32) / 255)
    return image.convert("L").convert(mode) if mode in ("I;16", "LA") else image.convert(mode)


def saved(kind: str, mode: str = "RGB", **options: object) -> bytes:
    drawing(mode).save(file := io.BytesIO(), kind, **options)
    return file.getvalue()


def exif(tags: dict[int, object]) -> bytes:
    found = Image.Exif()
    for tag, value in tags.items():
        found[tag] = value
    return found.tobytes()


@cache
def originals() -> dict[str, bytes]:
    """Files by name; what stands before the first blank is the format."""
    turned = exif({0x0112: 6, 0x010F: "maker", 0x8298: "whose", 0x829A: 0.5})
    files = {
        "JPEG": saved("JPEG", exif=turned, dpi=(72, 72)),
        "JPEG progressive": saved("JPEG", progressive=True, exif=turned),
        "JPEG grey": saved("JPEG", "L"),
        "JPEG cmyk": saved("JPEG", "CMYK"),
        "JPEG mpo": saved("MPO", save_all=True, append_images=[drawing("RGB"), drawing("RGB").rotate(90)]),
        "PNG": saved("PNG", exif=turned, icc_profile=b"profile" * 20),
        "PNG rgba": saved("PNG", "RGBA"),
        "PNG la": saved("PNG", "LA"),
        "PNG palette": saved("PNG", "P", transparency=3),
        "PNG 16": saved("PNG", "I;16"),
        "PNG bits": saved("PNG", "1"),
        "PNG animated": saved("PNG", save_all=True, append_images=[drawing("RGB"), drawing("RGB").rotate(90)]),
        "WEBP": saved("WEBP", exif=turned),
        "WEBP lossless": saved("WEBP", "RGBA", lossless=True),
        "WEBP animated": saved("WEBP", save_all=True, append_images=[drawing("RGB"), drawing("RGB").rotate(90)]),
        "GIF": saved("GIF", "P", transparency=2, comment=b"comment"),
        "GIF animated": saved("GIF", save_all=True, append_images=[drawing("RGB"), drawing("RGB").rotate(90)]),
        "BMP": saved("BMP"),
        "BMP palette": saved("BMP", "P"),
        "BMP rle": rle_bmp(),
        "TIFF": saved("TIFF", exif=turned),
        "TIFF rgba": saved("TIFF", "RGBA", compression="tiff_adobe_deflate"),
        "TIFF lzw": saved("TIFF", "P", compression="tiff_lzw"),
        "TIFF 16": saved("TIFF", "I;16", compression="packbits"),
        "TIFF float": saved("TIFF", "F"),
        "TIFF fax": saved("TIFF", "1", compression="group4"),
        "TIFF jpeg": saved("TIFF", compression="jpeg"),
        "TIFF pages": saved("TIFF", save_all=True, append_images=[drawing("RGB"), drawing("RGB").rotate(90)]),
        "PPM": saved("PPM"),
        "PPM grey": saved("PPM", "L"),
        "PPM bits": saved("PPM", "1"),
        "PPM plain": b"P3 2 2 255\n" + b"1 2 3 " * 4,
        "AVIF": saved("AVIF", exif=turned),
        "AVIF rgba": saved("AVIF", "RGBA"),
        "JPEG2000": saved("JPEG2000"),
        "JPEG2000 grey": saved("JPEG2000", "LA", irreversible=True),
        "JPEG2000 stream": saved("JPEG2000", no_jp2=True, tile_size=(16, 16)),
    }
    for kind in ("DDS", "ICO", "ICNS", "IM", "PCX", "QOI", "SGI", "TGA", "EPS", "PDF"):
        files[kind] = saved(kind)
    files |= {kind: saved(kind, mode) for kind, mode in (("BLP", "P"), ("MSP", "1"), ("XBM", "1"))}
    files["DDS dxt"] = saved("DDS", "RGBA", pixel_format="DXT5")
    files["SPIDER"] = saved("SPIDER", "F")
    body = bytes(range(256)) * 8
    return files | {
        "BUFR": b"BUFR" + body,
        "GRIB": b"GRIB\0\0\0\1" + body,
        "HDF5": b"\x89HDF\r\n\x1a\n" + body,
        "FITS": b"".join(line.ljust(80) for line in (b"SIMPLE  =  T", b"BITPIX  =  8", b"NAXIS   =  0", b"END")) + body,
        "WMF": b"\xd7\xcd\xc6\x9a\0\0" + struct.pack("<hhhhH", 0, 0, 9, 9, 72) + body,
        "PSD": b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 8, 8, 8, 3) + bytes(12) + body,
        "XPM": b'/* XPM */\nstatic char * a[] = {\n"2 1 1 1",\n"a c #ff0000",\n"aa"};\n',
        "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "FLI": struct.pack("<IHHHHHHI", 128, 0xAF11, 2, 8, 8, 8, 3, 70) + body,
        "GBR": struct.pack(">IIIII", 28, 1, 8, 8, 1) + body,
        "SUN": struct.pack(">IIIIIIII", 0x59A66A95, 8, 8, 8, 64, 1, 0, 0) + body,
    }


def rle_bmp() -> bytes:
    """Pillow reads run lengths in BMP and does not write them."""
    plain = bytearray(saved("BMP", "P"))
    plain[30:34] = struct.pack("<I", 1)
    (start,) = struct.unpack_from("<I", plain, 10)
    return bytes(plain[:start]) + b"".join(b"\x28" + bytes([row]) + b"\0\0" for row in range(32)) + b"\0\1"


def mutated(data: bytes, other: bytes, random: random.Random) -> bytes:
    """One to five alterations, as bad disks, half downloads and people make them."""
    found = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 3, 5))):
        place = random.randrange(min(len(found), 400) if random.random() < 0.4 else len(found))  # headers are short
        length = random.choice((1, 2, 4, 8, 64))
        match random.randrange(8):
            case 0:
                found[place] ^= 1 << random.randrange(8)
            case 1:
                found[place : place + length] = random.randbytes(length)
            case 2:
                del found[place + 1 :]
            case 3:
                del found[place : place + length]
            case 4:
                found[place:place] = random.randbytes(length)
            case 5:
                found[place:place] = found[place : place + 64]
            case 6:  # sizes, counts and offsets of headers
                kind = random.choice(
                    (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\xff\xff", b"\0\0\0\1")
                )
                found[place : place + 4] = kind if random.random() < 0.5 else kind[::-1]
            case 7:
                found[place : place + 256] = other[place : place + 256]
        found = found or bytearray(b"\0")
    data = bytes(found)
    return right_sums(data) if data.startswith(b"\x89PNG") and random.random() < 0.7 else data


def right_sums(data: bytes) -> bytes:
    """A PNG whose chunks have the check sums of their content, or the alteration would be all that is seen."""
    found, place = data[:8], 8
    while place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        chunk = data[place + 4 : place + 8 + length]
        found += struct.pack(">I", length) + chunk + struct.pack(">I", zlib.crc32(chunk))
        place += 12 + length
    return found + data[place:]


def loaded(source: bytes | Image.Image) -> tuple[Image.Image | None, str]:
    try:
        return load_image(source), ""
    except ImageError as error:
        return None, str(error)


def outcome(data: bytes) -> str:
    """What became of a file: a picture, or the beginning of the refusal. Anything else is raised."""
    with suppress(ImageError):
        image_size(data)
    image, error = loaded(data)
    if image is None:
        assert error.startswith(f"image of {len(data)} bytes: ")
        assert len(error) < 500
        return "refused"
    assert image.mode == "RGB"
    assert len(image.tobytes()) == 3 * image.width * image.height > 0
    return "picture"


def check(numbers: range) -> dict[str, int]:
    """Alter files by number and count the outcomes."""
    names = [name for name in originals() for _ in range(1 if name.partition(" ")[0] in REFUSED else 3)]
    counts = {"picture": 0, "refused": 0}
    for number in numbers:
        chance = random.Random(number)
        name = names[number % len(names)]
        data = mutated(originals()[name], originals()[chance.choice(names)], chance)
        began = time.monotonic()
        try:
            found = outcome(data)
        except Exception as error:
            raise AssertionError(f"file {number} ({name}): {error!r}") from error
        assert time.monotonic() - began < SECONDS, f"file {number} ({name})"
        counts[found] += 1
    return counts


@pytest.mark.parametrize("name", originals())
def test_intact_files_are_pictures_or_refused(name: str) -> None:
    kind = name.partition(" ")[0]
    assert outcome(originals()[name]) == ("refused" if kind in REFUSED else "picture")


@pytest.mark.filterwarnings("error")
def test_altered_files_are_pictures_or_refused() -> None:
    counts = check(range(3_000))
    assert min(counts.values()) > 600  # both are tried


@pytest.mark.slow
def test_ten_thousand_altered_files_are_pictures_or_refused() -> None:
    counts = check(range(10_000))
    assert min(counts.values()) > 2_000


@pytest.mark.parametrize("name", [name for name in originals() if name.partition(" ")[0] not in REFUSED])
def test_files_that_pil_opened_and_did_not_decode_are_pictures_or_refused(name: str) -> None:
    data = originals()[name]
    for size in range(len(data) - 40, len(data), 7):
        try:
            image = Image.open(io.BytesIO(data[:size]))
        except Exception:
            continue
        (first, error), (again, _) = loaded(image), loaded(image)
        assert (first is None) == (again is None)  # a failure is not forgotten
        assert first is not None or error.startswith("PIL image")
