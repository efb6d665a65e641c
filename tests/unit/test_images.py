import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from aim_sdk import Demonstration, load_image
from aim_sdk.errors import ImageError
from aim_sdk.files import images
from aim_sdk.files.images import describe, image_digest, image_size, read_image_file

ORIENTATION = 0x0112
needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")


def png(image: Image.Image, **options: object) -> bytes:
    return saved(image, "PNG", **options)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header claims so many pixels."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


def tiff(*tags: tuple[int, int], data: bytes = b"\0" * 1000) -> bytes:
    """A little-endian TIFF of integer tags, its data at byte 8."""
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)


GRADIENT = Image.linear_gradient("L")


# --- what is given


def test_path_bytes_and_pil_give_the_same_pixels(tmp_path: Path) -> None:
    image = GRADIENT.convert("RGB")
    (tmp_path / "a.png").write_bytes(png(image))
    for source in (tmp_path / "a.png", str(tmp_path / "a.png"), png(image), image):
        loaded = load_image(source)
        assert loaded.mode == "RGB"
        assert loaded.tobytes() == image.tobytes()


@pytest.mark.parametrize("strip", [1 << 22, 7])
def test_transparency_is_put_on_white(strip: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aim_sdk.files.pixels._STRIP", strip)
    rgba = Image.merge("RGBA", [Image.radial_gradient("L").resize((8, 6)).rotate(turn) for turn in (0, 90, 180, 270)])
    rgba.putpixel((3, 5), (255, 0, 0, 0))
    white = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    assert load_image(rgba).tobytes() == white.tobytes()
    assert load_image(rgba).getpixel((3, 5)) == (255, 255, 255)
    assert load_image(Image.new("LA", (2, 2), (0, 0))).getpixel((0, 0)) == (255, 255, 255)
    key = png(Image.new("L", (2, 2), 7), transparency=7)
    assert load_image(key).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
@pytest.mark.parametrize("strip", [1 << 22, 256])
def test_grey_of_sixteen_bits_is_scaled(kind: str, strip: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aim_sdk.files.pixels._STRIP", strip)
    values = np.asarray(GRADIENT).astype(np.uint16) * 257
    file = saved(Image.fromarray(values), kind)
    for source in (file, Image.open(io.BytesIO(file))):
        assert load_image(source).tobytes() == GRADIENT.convert("RGB").tobytes()


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B"])
def test_every_sixteen_bit_mode_is_scaled(mode: str) -> None:
    data = struct.pack(">4H" if mode == "I;16B" else "<4H", 0, 257, 32_896, 65_535)
    assert load_image(Image.frombytes(mode, (4, 1), data)).convert("L").tobytes() == bytes([0, 1, 128, 255])


def test_a_transparent_grey_of_sixteen_bits_is_white() -> None:
    file = png(Image.fromarray(np.array([[9, 257 * 3]], np.uint16)), transparency=9)
    assert load_image(file).convert("L").tobytes() == bytes([255, 3])


def test_twelve_bits_are_scaled_by_their_range() -> None:
    tags = [(256, 2), (257, 1), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, 3)]
    assert load_image(tiff(*tags, data=b"\xff\xf8\x00")).convert("L").tobytes() == bytes([255, 128])


def test_floats_from_0_to_1_are_scaled() -> None:
    values = np.asarray(GRADIENT, np.float32) / 255
    for source in (Image.fromarray(values), saved(Image.fromarray(values), "TIFF")):
        assert load_image(source).tobytes() == GRADIENT.convert("RGB").tobytes()


@pytest.mark.parametrize(
    "image",
    [
        Image.new("F", (4, 4), 1.5),
        Image.new("F", (4, 4), -0.1),
        Image.new("I", (4, 4), 70_000),
        Image.new("I", (4, 4), -1),
    ],
    ids=["over 1", "negative", "32 bits", "negative integer"],
)
def test_values_without_a_known_range_are_refused(image: Image.Image) -> None:
    for source in (image, saved(image, "TIFF")):
        with pytest.raises(ImageError, match="cale them to 8"):
            load_image(source)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_an_image_is_turned_as_its_exif_data_says_and_only_once(kind: str) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    file = saved(Image.new("RGB", (8, 4)), kind, exif=exif)
    assert image_size(file) == ((4, 8) if kind == "TIFF" else (8, 4))  # Pillow turns TIFF itself
    turned = load_image(file)
    assert turned.size == (4, 8)
    assert load_image(turned).size == (4, 8)


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0",
        b"Exif\0\0MM\0*",
        b"Exif\0\0nonsense of any kind",
        b"Exif\0\0MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\xff\xff\0\0\0\x08",
        b"Exif\0\0MM\0*\0\0\0\x08\0\2\x01\x12\0\3\0\0\0\1\0\x09\0\0\x87\x69\0\2\0\0\0\1a\0\0\0",
        b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\x01\5\0\1\0\0\0\0\0\0\0",
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_odd_exif_data_do_not_lose_an_intact_picture(kind: str, exif: bytes) -> None:
    image = Image.new("RGB", (8, 4), "red")
    assert load_image(saved(image, kind, exif=exif)).size == (8, 4)
    image.info["exif"] = exif
    assert load_image(image).tobytes() == image.tobytes()


def test_of_an_animation_the_first_frame_is_taken() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "lime")]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        pixel = load_image(saved(frames[0], kind, save_all=True, append_images=frames[1:])).getpixel((4, 4))
        assert np.allclose(pixel, (255, 0, 0), atol=8), kind


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_are_refused(value: float) -> None:
    image = Image.new("F", (4, 4), 0.5)
    image.putpixel((1, 2), value)
    for source in (image, saved(image, "TIFF")):
        with pytest.raises(ImageError, match="some values are NaN or infinite"):
            load_image(source)


# --- what is refused


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("missing.png", "missing.png: no such file"),
        ("", "the path of an image is empty"),
        (b"not an image", "not an image"),
        (png(GRADIENT)[:200], "truncated"),
        (bomb(12_000, 12_000), "12000 x 12000 pixels; at most 100000000"),
        (bomb(20_000, 20_000), "decompression bomb"),
        (bomb(0, 5), "not an image"),
        (bomb(1, 90_000_000), "a side has at most 65535"),
        (bomb(201, 1), "at most 200 times"),
        (b"", "not an image"),
        ("https://example.org/a.png", "fetch_image"),
        ("data:image/png;base64," + "iVBOR" * 9_000, r"data:image/png;base64,\.\.\. \(45022 characters\): a data URI"),
        ("a\0b.png", r"a\\x00b.png: not a path"),
        ("\ud83d.png", r"\\ud83d.png: not a path"),
        ("\udce4.png", r"\\udce4.png: no such file"),
        (b"P3 9 9 255 " + b"1 " * 3_000_000, "plain PPM"),
        (Image.new("RGB", (0, 4)), "at least one"),
        (Image.new("1", (70_000, 1)), "a side has at most"),
        (tiff((256, 9), (257, 9), (258, 8), (259, 5), (322, 40_000), (323, 40_000), (324, 8), (325, 99)), "a tile"),
    ],
)
def test_unusable_images_are_refused_by_name(source: str | bytes | Image.Image, message: str) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        load_image(source)
    assert isinstance(caught.value, ValueError)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("source", [bytearray(b"a"), memoryview(b"a"), np.zeros((4, 4, 3), np.uint8), None, 3, [b"a"]])
def test_what_is_no_image_is_refused_with_what_to_pass(source: object) -> None:
    for function in (load_image, image_size, image_digest):
        with pytest.raises(ImageError, match=r"expected a path.*PIL\.Image\.fromarray"):
            function(source)  # type: ignore[arg-type, operator]


def test_a_header_is_held_to_the_same_limits() -> None:
    for file in (bomb(12_000, 12_000), bomb(201, 1), b"", b"x"):
        with pytest.raises(ImageError):
            image_size(file)
    with pytest.raises(ImageError, match="200 times"):
        image_size(Image.new("L", (201, 1)))


def test_limits_are_set_in_the_module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = png(Image.new("L", (300, 2)))
    for name, value in (("MAX_PIXELS", 599), ("MAX_SIDE", 299), ("MAX_ASPECT", 149), ("MAX_FILE_BYTES", 20)):
        assert load_image(file).size == (300, 2)
        with monkeypatch.context() as changed:
            changed.setattr(images, name, value)
            with pytest.raises(ImageError, match="at most"):
                load_image(file)
    monkeypatch.setattr(images, "MAX_FILE_BYTES", len(file) - 1)
    (tmp_path / "a.png").write_bytes(file)
    for function in (load_image, image_size, image_digest):
        with pytest.raises(ImageError, match=r"a\.png: \d+ bytes; at most"):
            function(tmp_path / "a.png")


def test_jpeg_2000_has_half_the_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    assert load_image(png(Image.new("L", (10, 10)))).size == (10, 10)
    with pytest.raises(ImageError, match="at most 50"):
        load_image(saved(Image.new("L", (10, 10)), "JPEG2000"))


def test_a_file_of_endless_small_parts_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    file = png(Image.new("L", (4, 4)))
    parts = file[:33] + chunk(b"aaAa", b"") * 1_000 + file[33:]
    assert load_image(parts).size == (4, 4)
    monkeypatch.setattr(images, "MAX_READS", 1_000)
    with pytest.raises(ImageError, match="too many parts"):
        load_image(parts)


def test_a_progressive_jpeg_of_endless_scans_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    file = saved(GRADIENT, "JPEG", progressive=True)
    assert load_image(file).size == GRADIENT.size
    scan = file[file.rindex(b"\xff\xda") : -2]
    monkeypatch.setattr(images, "MAX_SCANNED_PIXELS", 100 * 256 * 256)
    with pytest.raises(ImageError, match="scans of 256 x 256"):
        load_image(file[:-2] + scan * 100 + file[-2:])


def test_decoders_that_start_programs_are_never_called(tmp_path: Path) -> None:
    file = tmp_path / "photo.png"
    file.write_bytes(saved(Image.new("RGB", (4, 4)), "EPS"))
    with pytest.raises(ImageError, match=r"photo\.png: not an image that can be read"):
        load_image(file)
    with pytest.raises(ImageError, match=r"EPS is not decoded here; call its load\(\)"):
        load_image(Image.open(file))


def test_a_cut_image_that_pil_opened_is_refused_every_time() -> None:
    for kind in ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "JPEG2000"):
        file = saved(GRADIENT.resize((64, 64)).rotate(30), kind)
        try:
            image = Image.open(io.BytesIO(file[: len(file) * 3 // 4]))
        except Exception:  # PIL sees it itself
            continue
        for function in (image_digest, load_image, load_image):
            with pytest.raises(ImageError, match="PIL image 64 x 64"):
                function(image)


# --- which files


def test_a_folder_is_not_an_image(tmp_path: Path) -> None:
    for function in (load_image, image_size, image_digest):
        with pytest.raises(ImageError, match=tmp_path.name):
            function(tmp_path)


@needs_pipes
def test_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to("pipe.png")
    for name in ("pipe.png", "link.png"):
        for function in (load_image, image_size, image_digest):
            with pytest.raises(ImageError, match=f"{name}: not a regular file"):
                function(tmp_path / name)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no /dev/zero here")
def test_a_device_is_refused() -> None:
    for function in (load_image, image_size, image_digest):
        with pytest.raises(ImageError, match="not a regular file"):
            function("/dev/zero")


def test_a_file_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    with file.open("wb") as opened:
        opened.truncate(8_000_000_000)  # sparse
    for function in (load_image, image_size, image_digest):
        with pytest.raises(ImageError, match="8000000000 bytes; at most"):
            function(file)


def test_a_name_that_is_no_utf_8_is_read(tmp_path: Path) -> None:
    file = os.fsencode(tmp_path) + b"/bild\xe4.png"
    try:
        Path(os.fsdecode(file)).write_bytes(png(GRADIENT))
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    assert load_image(os.fsdecode(file)).size == (256, 256)
    assert describe(os.fsdecode(file)).endswith(r"bild\udce4.png")


@given(st.text() | st.text(st.characters(categories=["Cs", "Cc", "Lu"])))
def test_any_text_is_a_path_or_an_image_error(text: str) -> None:
    with pytest.raises(ImageError):
        read_image_file(text)
    assert describe(text).isprintable()


# --- memory


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
@pytest.mark.parametrize("mode", ["RGBA", "LA", "I;16"])
def test_a_large_image_takes_a_bounded_memory(mode: str, tmp_path: Path) -> None:
    """40 megapixels: 4 bytes each as Pillow decodes them and 4 of the result, where five copies were made once."""
    Image.new(mode, (8_000, 5_000)).save(tmp_path / "a.png", compress_level=1)
    script = (
        "import sys; from aim_sdk.files.images import load_image; load_image(sys.argv[1]);"
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    )
    found = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "a.png")], capture_output=True, text=True, check=True
    )
    assert int(found.stdout) * 1024 < 40_000_000 * 9 + 150_000_000


# --- identity


def test_digest_depends_on_content_alone(tmp_path: Path) -> None:
    data = png(GRADIENT)
    (tmp_path / "a.png").write_bytes(data)
    (tmp_path / "b.png").write_bytes(data)
    assert image_digest(tmp_path / "a.png") == image_digest(str(tmp_path / "b.png")) == image_digest(data)
    assert image_digest(Image.new("RGB", (2, 3))) != image_digest(Image.new("RGB", (3, 2)))


def test_digest_of_a_pil_image_is_of_what_is_seen() -> None:
    red, blue = Image.new("P", (64, 64), 0), Image.new("P", (64, 64), 0)
    red.putpalette([255, 0, 0])
    blue.putpalette([0, 0, 255])
    assert image_digest(red) != image_digest(blue)
    assert image_digest(red) == image_digest(Image.new("RGB", (64, 64), "red"))

    opaque, clear = (Image.open(io.BytesIO(png(red, **options))) for options in ({}, {"transparency": 0}))
    assert image_digest(opaque) != image_digest(clear)
    assert image_digest(clear) == image_digest(Image.new("RGB", (64, 64), "white"))

    exif = Image.Exif()
    exif[ORIENTATION] = 3
    upright, turned = (Image.open(io.BytesIO(png(GRADIENT, **options))) for options in ({}, {"exif": exif}))
    assert image_digest(upright) != image_digest(turned)
    assert image_digest(turned) == image_digest(GRADIENT.rotate(180))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "CMYK", "1", "LA", "I;16"])
def test_digest_is_that_of_the_loaded_image(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image = GRADIENT.convert("L").convert(mode) if mode in ("I;16", "LA") else GRADIENT.convert(mode)
    whole = image_digest(image)
    assert whole == image_digest(load_image(image))
    monkeypatch.setattr("aim_sdk.files.pixels._STRIP", 1_000)
    assert whole == image_digest(image)


def test_text_in_a_png_does_not_change_what_is_seen() -> None:
    note = PngImagePlugin.PngInfo()
    note.add_text("Title", "a")
    plain, titled = (Image.open(io.BytesIO(png(GRADIENT, **options))) for options in ({}, {"pnginfo": note}))
    assert image_digest(plain) == image_digest(titled)
    assert Demonstration(titled, "", "a").image is titled


@pytest.mark.parametrize(("values", "expected"), [(np.uint16(2570), 245), (np.float32(0.25), 191)])
def test_a_tiff_whose_zero_is_white_is_turned_in_any_depth(values: Any, expected: int) -> None:
    file = io.BytesIO()
    Image.fromarray(np.full((4, 4), values)).save(file, "TIFF", tiffinfo={262: 0})
    assert load_image(file.getvalue()).getpixel((0, 0)) == (expected,) * 3


def test_a_transparent_colour_of_16_bits_is_put_on_white() -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)

    header = (2).to_bytes(4) + (2).to_bytes(4) + bytes([16, 2, 0, 0, 0])
    rows = zlib.compress(2 * (b"\0" + 2 * (b"\x0a\x0b" * 3)))
    parts = [chunk(b"IHDR", header), chunk(b"tRNS", b"\x0a\x0b" * 3), chunk(b"IDAT", rows), chunk(b"IEND", b"")]
    assert load_image(b"\x89PNG\r\n\x1a\n" + b"".join(parts)).getpixel((0, 0)) == (255, 255, 255)
