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
class DrawingStyle:
    """One drawing style: a package, its licence, and whom to credit."""

    name: str
    package: str
    version: str
    sha256: str
    licence: str
    credit: str
    depictable: bool = False  # every icon of the set shows a thing

    @property
    def archive(self) -> Path:
        return PACKAGES / f"{self.package.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


HELD_OUT_STYLE: Final = "emojione"
STYLES: Final = (
    DrawingStyle(
        "google",
        "emoji-datasource-google",
        "16.0.0",
        "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
        "Apache-2.0",
        "Noto Emoji, Google Inc., packaged by Cal Henderson",
    ),
    DrawingStyle(
        "twitter",
        "emoji-datasource-twitter",
        "16.0.0",
        "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
        "CC-BY-4.0",
        "Twemoji, Twitter Inc. and other contributors, packaged by Cal Henderson",
    ),
    DrawingStyle(
        "fluent-flat",
        "@iconify-json/fluent-emoji-flat",
        "1.2.6",
        "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
        "MIT",
        "Fluent Emoji Flat, Microsoft Corporation",
    ),
    DrawingStyle(
        "fluent",
        "@iconify-json/fluent-emoji",
        "1.2.7",
        "8044210dbf11e016d4de85f15d01a243423bd832457e7e2491df1b751c0e272b",
        "MIT",
        "Fluent Emoji, Microsoft Corporation",
    ),
    DrawingStyle(
        "noto-v1",
        "@iconify-json/noto-v1",
        "1.2.5",
        "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37",
        "Apache-2.0",
        "Noto Emoji (v1), Google Inc.",
    ),
    DrawingStyle(
        "fxemoji",
        "@iconify-json/fxemoji",
        "1.2.2",
        "f3e72b3c59d05e1db03b7e308d55c0d05bd7ba3f625a90da1b79313c12858eef",
        "Apache-2.0",
        "Firefox OS Emoji, Mozilla",
    ),
    DrawingStyle(
        HELD_OUT_STYLE,
        "@iconify-json/emojione",
        "1.2.3",
        "26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e",
        "CC-BY-4.0",
        "Emoji One (EmojiTwo), Emoji One and contributors",
    ),
)
WIDE_STYLES: Final = (
    DrawingStyle(
        "streamline-emojis",
        "@iconify-json/streamline-emojis",
        "1.2.4",
        "5dac87c876b322500989828c5823143e0100d78881627a2e4081a4b897cbfdbc",
        "CC-BY-4.0",
        "Streamline Emojis, Streamline",
        depictable=True,
    ),
    DrawingStyle(
        "flat-color-icons",
        "@iconify-json/flat-color-icons",
        "1.2.3",
        "d8878a9b0f02d749bc8671eb7d47882eb711185cbcefbb365cbfb488773c4786",
        "MIT",
        "Flat Color Icons, Icons8",
    ),
    DrawingStyle(
        "icon-park",
        "@iconify-json/icon-park",
        "1.2.4",
        "c1a25212a31602aca93c3fa6f6b3288e89b9d7811afc132dfd78506e9d586b6f",
        "Apache-2.0",
        "IconPark, ByteDance",
    ),
    DrawingStyle(
        "streamline-ultimate-color",
        "@iconify-json/streamline-ultimate-color",
        "1.2.2",
        "46133a11f3734bcef29066391d7edc141ed1d8056242ddfa1b5d36ce286420b6",
        "CC-BY-4.0",
        "Ultimate color icons, Streamline",
    ),
    DrawingStyle(
        "streamline-kameleon-color",
        "@iconify-json/streamline-kameleon-color",
        "1.2.2",
        "5f972d986afb340d8a45d7a16e767f99f91fdd94db53e46a78c79847212aed7b",
        "CC-BY-4.0",
        "Kameleon color icons, Streamline",
    ),
    DrawingStyle(
        "streamline-cyber-color",
        "@iconify-json/streamline-cyber-color",
        "1.2.2",
        "bc71bb624b8a500841e2e47c0175bf13dfb99b38a6ddc2421d3ac21331e21eac",
        "CC-BY-4.0",
        "Cyber color icons, Streamline",
    ),
    DrawingStyle(
        "streamline-color",
        "@iconify-json/streamline-color",
        "1.2.2",
        "06c2addb59f572b2bfe581863888fcf7dbe0927e0511e7157c54f332fe90347f",
        "CC-BY-4.0",
        "Streamline color, Streamline",
    ),
    DrawingStyle(
        "game-icons",
        "@iconify-json/game-icons",
        "1.2.4",
        "f5758efb34d91c4f50b941f355f16ee73938625e5996fabc25171288404460a4",
        "CC-BY-3.0",
        "Game Icons, GameIcons",
        depictable=True,
    ),
    DrawingStyle(
        "fluent-emoji-high-contrast",
        "@iconify-json/fluent-emoji-high-contrast",
        "1.2.6",
        "0b92d48c90d2200bd499e3cdd09a127ca6a8c8ddefd34c35eb5a1e4994012ae0",
        "MIT",
        "Fluent Emoji High Contrast, Microsoft Corporation",
        depictable=True,
    ),
    DrawingStyle(
        "mdi",
        "@iconify-json/mdi",
        "1.2.3",
        "ddd817a7213f91de51147943915c0cda8c8b818a53c92b5c068cfa9883c6d7ac",
        "Apache-2.0",
        "Material Design Icons, Pictogrammers",
    ),
    DrawingStyle(
        "ph",
        "@iconify-json/ph",
        "1.2.2",
        "e3a582a047d9829fc7e8842c660d8065e598d1b68bb58cb68e75a1f1e5a614cc",
        "MIT",
        "Phosphor, Phosphor Icons",
    ),
    DrawingStyle(
        "tabler",
        "@iconify-json/tabler",
        "1.2.41",
        "3bf99af156d28d05568aff524a35ed1ba238df640a7835a5e02e1f8e439685f6",
        "MIT",
        "Tabler Icons, Paweł Kuna",
    ),
    DrawingStyle(
        "lucide",
        "@iconify-json/lucide",
        "1.2.137",
        "e74db8c3a55fff55bc82de21268c4bced9f65ff10aacc0d5f3a395b0e93243c3",
        "ISC",
        "Lucide, Lucide Contributors",
    ),
    DrawingStyle(
        "lucide-lab",
        "@iconify-json/lucide-lab",
        "1.2.3",
        "ea0a3dc587d60e65b4e710f2239a54a6609fcd19b214f9eb0df66874f920df08",
        "ISC",
        "Lucide Lab, Lucide Contributors",
        depictable=True,
    ),
    DrawingStyle(
        "fa6-solid",
        "@iconify-json/fa6-solid",
        "1.2.4",
        "082c792eaad4751626438773fa7360cb23f495b687cf2dd01b2b0fccc7f6af8b",
        "CC-BY-4.0",
        "Font Awesome 6 Solid, Dave Gandy",
    ),
    DrawingStyle(
        "healthicons",
        "@iconify-json/healthicons",
        "1.2.13",
        "4c2552c45737788a6599da3c5b72610c7fb4e7f87075d401c56fa16d487d4caf",
        "MIT",
        "Health Icons, Resolve to Save Lives",
    ),
    DrawingStyle(
        "temaki",
        "@iconify-json/temaki",
        "1.2.6",
        "24a874e1d81a7de9d56e534fdc56287cfe6e73488a24ef5c8982d4fd5f294d8d",
        "CC0-1.0",
        "Temaki, Bryan Housel",
        depictable=True,
    ),
    DrawingStyle(
        "maki",
        "@iconify-json/maki",
        "1.2.5",
        "cbf41d1b7262fad2eecdc6425ae5afed2de9b3512093c4c778fb456e788d7e12",
        "CC0-1.0",
        "Maki, Mapbox",
    ),
    DrawingStyle(
        "hugeicons",
        "@iconify-json/hugeicons",
        "1.2.35",
        "cca09de913319938961fa0613a8eb42952f76c3ee13a7c68ef411091590c5d8b",
        "MIT",
        "Huge Icons, Hugeicons",
    ),
    DrawingStyle(
        "material-symbols",
        "@iconify-json/material-symbols",
        "1.2.98",
        "142d50bf28e7db85362795be335ebc29dac611d73c404fc1e6fc5cc198e2b3d0",
        "Apache-2.0",
        "Material Symbols, Google",
    ),
    DrawingStyle(
        "mingcute",
        "@iconify-json/mingcute",
        "1.2.8",
        "fec65f4430ac70a968e0e7fc7741e7064ba91e6da992b905f75c9d70c717bd2c",
        "Apache-2.0",
        "MingCute Icon, MingCute Design",
    ),
    DrawingStyle(
        "solar",
        "@iconify-json/solar",
        "1.2.13",
        "9efec9045e9188c5dd5cf9de52f8ad968ffabee565026480a6c74bfe63b3bbc2",
        "CC-BY-4.0",
        "Solar, 480 Design",
    ),
    DrawingStyle(
        "guidance",
        "@iconify-json/guidance",
        "1.2.2",
        "87a0b6a5791954a33c8694bfdb2635d38d1226bfbd3f58f853e036b365bd30fb",
        "CC-BY-4.0",
        "Guidance, Streamline",
        depictable=True,
    ),
    DrawingStyle(
        "iconoir",
        "@iconify-json/iconoir",
        "1.2.11",
        "8e5d3bfbd55aa8ef3878f0c2f248cf71fe99822172fd07990e32ab7fe7a68b1e",
        "MIT",
        "Iconoir, Luca Burgio",
    ),
)


def fetch(styles: Iterable[DrawingStyle]) -> None:
    """Pack the missing packages with npm and check every archive's hash."""
    PACKAGES.mkdir(parents=True, exist_ok=True)
    for style in styles:
        if not style.archive.exists():
            subprocess.run(["npm", "pack", "--silent", f"{style.package}@{style.version}"], cwd=PACKAGES, check=True)
        found = hashlib.sha256(style.archive.read_bytes()).hexdigest()
        if found != style.sha256:
            raise RuntimeError(
                f"{style.archive.name}: sha256 {found}, expected {style.sha256}; delete it and run again."
            )


def emoji_table() -> list[dict[str, Any]]:
    """Return emoji-datasource's table: one row a character, with names and categories."""
    table: list[dict[str, Any]] = read_json(STYLES[0], "emoji.json")
    return table


def fluent_names() -> dict[str, str]:
    """Return code point(s) -> CLDR name, as Fluent Emoji Flat lists them."""
    names: dict[str, str] = read_json(STYLES[2], "chars.json")
    return names


class IconSet:
    """An iconify package: drawings as SVG bodies, found by name whatever its hyphens and case."""

    def __init__(self, style: DrawingStyle) -> None:
        self._data: dict[str, Any] = read_json(style, "icons.json")

    @cached_property
    def _names(self) -> dict[str, str]:
        aliases = {squeeze(alias): target["parent"] for alias, target in self._data.get("aliases", {}).items()}
        return aliases | {squeeze(name): name for name in self._data["icons"]}

    def render(self, names: Iterable[str]) -> Image.Image | None:
        """Draw the first of ``names`` that the set has."""
        found = next((self._names[key] for name in names if (key := squeeze(name)) in self._names), None)
        if found not in self._data["icons"]:
            return None
        svg = icon_svg(self._data, found, _PIXELS)
        return Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg, width=_PIXELS, height=_PIXELS))))


def icon_svg(data: dict[str, Any], name: str, pixels: int) -> str:
    """Return one icon of an iconify set as a document."""
    icon = data["icons"][name]
    default = data.get("width", 16), data.get("height", 16)
    width, height = icon.get("width", default[0]), icon.get("height", default[1])
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{icon.get("left", 0)} {icon.get("top", 0)} {width} {height}" '
        f'width="{pixels}" height="{pixels}">{icon["body"]}</svg>'
    )


def squeeze(name: str) -> str:
    """Reduce a name to its letters and digits, for matching across packages."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def bitmaps(style: DrawingStyle) -> Iterator[tuple[str, Image.Image]]:
    """Yield (file name, image) of an emoji-datasource package's 64-pixel drawings."""
    prefix = f"package/img/{style.name}/64/"
    with tarfile.open(style.archive) as archive:
        for member in archive:
            if member.name.startswith(prefix) and (file := archive.extractfile(member)):
                yield member.name.removeprefix(prefix), Image.open(io.BytesIO(file.read()))


def read_json(style: DrawingStyle, name: str, default: Any = None) -> Any:
    """Read a file of the package; ``default`` where it lacks the file."""
    with tarfile.open(style.archive) as archive:
        if default is not None and f"package/{name}" not in archive.getnames():
            return default
        file = archive.extractfile(f"package/{name}")
        assert file is not None
        return json.load(file)
