import io
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from aim_sdk import fetch_image, load_image
from aim_sdk.errors import ImageError
from aim_sdk.images import image_digest


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def bomb(side: int) -> bytes:
    """A PNG whose header claims side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


def test_path_bytes_and_pil_give_the_same_pixels(tmp_path: Path) -> None:
    image = Image.linear_gradient("L").convert("RGB")
    (tmp_path / "a.png").write_bytes(png(image))
    for source in (tmp_path / "a.png", str(tmp_path / "a.png"), png(image), image):
        loaded = load_image(source)
        assert loaded.mode == "RGB"
        assert loaded.tobytes() == image.tobytes()


def test_transparency_is_put_on_white() -> None:
    assert load_image(Image.new("RGBA", (2, 2), (255, 0, 0, 0))).getpixel((0, 0)) == (255, 255, 255)
    assert load_image(Image.new("LA", (2, 2), (0, 0))).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("missing.png", "missing.png: no such file"),
        (b"not an image", "not an image"),
        (png(Image.linear_gradient("L"))[:200], "truncated"),
        (bomb(12_000), "12000 x 12000 pixels"),
        (bomb(20_000), "decompression bomb"),
        (b"", "not an image"),
        ("https://example.org/a.png", "fetch_image"),
    ],
    ids=["missing", "text", "truncated", "large", "bomb", "empty", "address"],
)
def test_unusable_images_are_refused_by_name(source: str | bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        load_image(source)
    assert isinstance(caught.value, ValueError)


def test_a_folder_is_not_an_image(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=tmp_path.name):
        load_image(tmp_path)


def test_fetching_needs_an_address() -> None:
    with pytest.raises(ImageError, match="http"):
        fetch_image("file:///etc/passwd")
    with pytest.raises(ImageError, match="cannot be downloaded"):
        fetch_image("http://127.0.0.1:9/a.png")


def test_digest_depends_on_content_alone(tmp_path: Path) -> None:
    data = png(Image.linear_gradient("L"))
    (tmp_path / "a.png").write_bytes(data)
    (tmp_path / "b.png").write_bytes(data)
    assert image_digest(tmp_path / "a.png") == image_digest(str(tmp_path / "b.png")) == image_digest(data)
    assert image_digest(Image.new("RGB", (2, 3))) != image_digest(Image.new("RGB", (3, 2)))
