"""The published packages that hold the drawings: fetched with ``npm pack``, read without being unpacked."""

import hashlib
import io
import json
import re
import subprocess
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import resvg_py
from PIL import Image

from benchmarks.pocket.config import PACKAGES

_PIXELS: Final = 96


@dataclass(frozen=True)
class Style:
    """One drawing style: a package, its licence, and whom to credit."""

    name: str
    package: str
    version: str
    sha256: str
    licence: str
    credit: str

    @property
    def archive(self) -> Path:
        return PACKAGES / f"{self.package.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


HELD_OUT_STYLE: Final = "emojione"
STYLES: Final = (
    Style(
        "google",
        "emoji-datasource-google",
        "16.0.0",
        "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
        "Apache-2.0",
        "Noto Emoji, Google Inc., packaged by Cal Henderson",
    ),
    Style(
        "twitter",
        "emoji-datasource-twitter",
        "16.0.0",
        "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
        "CC-BY-4.0",
        "Twemoji, Twitter Inc. and other contributors, packaged by Cal Henderson",
    ),
    Style(
        "fluent-flat",
        "@iconify-json/fluent-emoji-flat",
        "1.2.6",
        "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
        "MIT",
        "Fluent Emoji Flat, Microsoft Corporation",
    ),
    Style(
        "fluent",
        "@iconify-json/fluent-emoji",
        "1.2.7",
        "8044210dbf11e016d4de85f15d01a243423bd832457e7e2491df1b751c0e272b",
        "MIT",
        "Fluent Emoji, Microsoft Corporation",
    ),
    Style(
        "noto-v1",
        "@iconify-json/noto-v1",
        "1.2.5",
        "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37",
        "Apache-2.0",
        "Noto Emoji (v1), Google Inc.",
    ),
    Style(
        "fxemoji",
        "@iconify-json/fxemoji",
        "1.2.2",
        "f3e72b3c59d05e1db03b7e308d55c0d05bd7ba3f625a90da1b79313c12858eef",
        "Apache-2.0",
        "Firefox OS Emoji, Mozilla",
    ),
    Style(
        HELD_OUT_STYLE,
        "@iconify-json/emojione",
        "1.2.3",
        "26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e",
        "CC-BY-4.0",
        "Emoji One (EmojiTwo), Emoji One and contributors",
    ),
)


def fetch() -> None:
    """Pack the missing packages with npm and check every archive's hash."""
    PACKAGES.mkdir(parents=True, exist_ok=True)
    for style in STYLES:
        if not style.archive.exists():
            subprocess.run(["npm", "pack", "--silent", f"{style.package}@{style.version}"], cwd=PACKAGES, check=True)
        found = hashlib.sha256(style.archive.read_bytes()).hexdigest()
        if found != style.sha256:
            raise RuntimeError(
                f"{style.archive.name}: sha256 {found}, expected {style.sha256}; delete it and run again."
            )


def emoji_table() -> list[dict[str, Any]]:
    """Return emoji-datasource's table: one row a character, with names and categories."""
    table: list[dict[str, Any]] = _read_json(STYLES[0], "emoji.json")
    return table


def fluent_names() -> dict[str, str]:
    """Return code point(s) -> CLDR name, as Fluent Emoji Flat lists them."""
    names: dict[str, str] = _read_json(STYLES[2], "chars.json")
    return names


class IconSet:
    """An iconify package: drawings as SVG bodies, found by name whatever its hyphens and case."""

    def __init__(self, style: Style) -> None:
        self._data: dict[str, Any] = _read_json(style, "icons.json")

    @cached_property
    def _names(self) -> dict[str, str]:
        aliases = {squeeze(alias): target["parent"] for alias, target in self._data.get("aliases", {}).items()}
        return aliases | {squeeze(name): name for name in self._data["icons"]}

    def render(self, names: Iterable[str]) -> Image.Image | None:
        """Draw the first of ``names`` that the set has."""
        found = next((self._names[key] for name in names if (key := squeeze(name)) in self._names), None)
        icon = self._data["icons"].get(found)
        if icon is None:
            return None
        default = self._data.get("width", 16), self._data.get("height", 16)
        width, height = icon.get("width", default[0]), icon.get("height", default[1])
        svg = (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{icon.get("left", 0)} {icon.get("top", 0)} {width} {height}" '
            f'width="{_PIXELS}" height="{_PIXELS}">{icon["body"]}</svg>'
        )
        return Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg, width=_PIXELS, height=_PIXELS))))


def squeeze(name: str) -> str:
    """Reduce a name to its letters and digits, for matching across packages."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def bitmaps(style: Style) -> Iterator[tuple[str, Image.Image]]:
    """Yield (file name, image) of an emoji-datasource package's 64-pixel drawings."""
    prefix = f"package/img/{style.name}/64/"
    with tarfile.open(style.archive) as archive:
        for member in archive:
            if member.name.startswith(prefix) and (file := archive.extractfile(member)):
                yield member.name.removeprefix(prefix), Image.open(io.BytesIO(file.read()))


def _read_json(style: Style, name: str) -> Any:
    with tarfile.open(style.archive) as archive:
        file = archive.extractfile(f"package/{name}")
        assert file is not None
        return json.load(file)
