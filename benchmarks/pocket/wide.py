"""Stage ``data``, second part: more named drawings, from icon sets, for training alone.

An icon counts as a concept where its name is a plain one (no word of user interfaces, no brand), and where a set of
depictable things has it, or two sets agree on it. Nothing that could be a held-out concept under another name is
taken: no name that shares a word, a part of a compound or a synonym with a held-out concept's name, and none with a
held-out label word in it.
"""

import io
import json
import random
import re
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import resvg_py
from PIL import Image

from aim_backends.pocket.model import PocketModel
from benchmarks.pocket.catalog import load_catalog
from benchmarks.pocket.config import DRAWINGS, WIDE, WORK
from benchmarks.pocket.sources import WIDE_STYLES, DrawingStyle, fetch, icon_svg, read_json
from benchmarks.pocket.words import Words

_PIXELS: Final = 96
_WORDS: Final = Path(__file__).parent / "wide_words.json"
_MOST_WORDS: Final = 3
_VARIANT: Final = re.compile(
    r"(.+)-(outline|outlined|fill|filled|line|bold|duotone|linear|solid|rounded|sharp|alt|duo|flat"
    r"|remix|simple|variant|one|two|three|four|five|thin|light|broken|negative|24px|\d+(px)?)"
)
_FAINT: Final = re.compile(r"-(thin|light|broken|negative|24px|11)$")


@dataclass(frozen=True)
class WideConcept:
    """A named thing outside the catalogue; ``category`` is empty where no set says it."""

    name: str
    category: str
    drawings: dict[str, str]


@cache
def load_wide() -> tuple[WideConcept, ...]:
    """Read what `build` wrote."""
    return tuple(WideConcept(**entry) for entry in json.loads(WIDE.read_text(encoding="utf-8")))


def build() -> None:
    """Choose the names, draw each in every set that has it, and write the list."""
    fetch(WIDE_STYLES)
    sets = {style.name: _Set(style) for style in WIDE_STYLES}
    allowed = _Allowed(Words(PocketModel.load_base()).held_out)
    names = sorted({name for icons in sets.values() for name in icons.by_name if allowed(name)})
    concepts = []
    for name in names:
        having = [icons for icons in sets.values() if name in icons.by_name]
        if len(having) > 1 or any(name in icons.depictable for icons in having):
            drawings = {icons.style.name: icons.draw(name).relative_to(WORK).as_posix() for icons in having}
            concepts.append(WideConcept(name, _category(name, having), drawings))
    WIDE.write_text(json.dumps([asdict(concept) for concept in concepts], indent=1), encoding="utf-8")
    print(f"{len(concepts)} wide concepts, {sum(len(c.drawings) for c in concepts)} drawings", flush=True)


class _Set:
    """An iconify package: plain name -> its icons."""

    def __init__(self, style: DrawingStyle) -> None:
        self.style = style
        self.data: dict[str, Any] = read_json(style, "icons.json")
        metadata = read_json(style, "metadata.json", default={})
        self.categories: dict[str, list[str]] = {}
        for category, icons in metadata.get("categories", {}).items():
            for icon in icons:
                self.categories.setdefault(plain(icon), []).append(category)
        self.by_name: dict[str, list[str]] = {}
        for icon in self.data["icons"]:
            if not _FAINT.search(icon) and "Brand" not in " ".join(self.categories.get(plain(icon), ())):
                self.by_name.setdefault(plain(icon), []).append(icon)
        kept = _words()["categories"]
        self.depictable = {
            name for name in self.by_name if style.depictable or any(c in kept for c in self.categories.get(name, ()))
        }

    def draw(self, name: str) -> Path:
        """Save one of the name's icons; a set of one colour is drawn in a random, mostly dark one."""
        rng = random.Random(zlib.crc32(f"{self.style.name}:{name}".encode()))
        highest = 110 if rng.random() < 0.8 else 220
        colour = "#" + "".join(f"{rng.randint(0, highest):02x}" for _ in range(3))
        svg = icon_svg(self.data, rng.choice(self.by_name[name]), _PIXELS).replace("currentColor", colour)
        path = DRAWINGS / self.style.name / f"{name.replace(' ', '-')}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg, width=_PIXELS, height=_PIXELS))))
        image.convert("RGBA").save(path)
        return path


class _Allowed:
    """Whether a name is a plain one, and safely not a held-out concept's."""

    def __init__(self, held_out_labels: Iterable[str]) -> None:
        words = _words()
        self._unwanted = {*words["interface"], *held_out_labels}
        names = (concept.name for concept in load_catalog() if concept.held_out)
        self._held = {_stem(word) for name in names for word in name.split()} - set(words["common"])
        self._held |= {_stem(word) for word in words["synonyms"]}

    def __call__(self, name: str) -> bool:
        words = name.split()
        return 1 <= len(words) <= _MOST_WORDS and all(self._plain(w) and not self._related(_stem(w)) for w in words)

    def _plain(self, word: str) -> bool:
        return bool(re.fullmatch("[a-z]{3,}|of|and|on|in", word)) and word not in self._unwanted

    def _related(self, word: str) -> bool:
        """Equal to a held-out word, or a compound with it."""
        return word in self._held or any(
            (len(held) > 2 and word.endswith(held)) or (len(held) > 3 and word.startswith(held)) for held in self._held
        )


def plain(icon: str) -> str:
    """Return an icon's name without its variant."""
    while match := _VARIANT.fullmatch(icon):
        icon = match[1]
    return icon.replace("-", " ").lower()


def _stem(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def _category(name: str, having: Iterable[_Set]) -> str:
    known = {concept.name: concept.category for concept in load_catalog()}
    kinds: dict[str, str] = _words()["categories"]
    said = [kinds[c] for icons in having for c in icons.categories.get(name, ()) if kinds.get(c)]
    return known.get(name) or (said[0] if said else "")


@cache
def _words() -> dict[str, Any]:
    """Return the lists that the choice of names goes by."""
    found: dict[str, Any] = json.loads(_WORDS.read_text(encoding="utf-8"))
    return found
