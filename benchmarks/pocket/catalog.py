"""Stage ``data``: concepts, their drawings in several styles, and the split into training and held-out concepts."""

import json
import random
import re
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Final

from benchmarks.pocket import sources
from benchmarks.pocket.config import CATALOG, DRAWINGS, HELD_OUT_CONCEPTS, SEED, WORK

CATEGORIES: Final = {
    "Animals & Nature": "nature",
    "Food & Drink": "food",
    "Activities": "activity",
    "Objects": "object",
    "Travel & Places": "travel",
    "Smileys & Emotion": "face",
    "Symbols": "symbol",
}
_DULL = re.compile(r"o.?clock|thirty|^keycap|^input |medium.square|small.square|^[0-9#*]")


@dataclass(frozen=True)
class Concept:
    """A thing with a name, and its drawings: style -> path below the work folder."""

    name: str
    category: str
    group: str
    held_out: bool
    drawings: dict[str, str]

    @property
    def nameable(self) -> bool:
        """Whether it can stand in an episode: not a symbol, and with a short name."""
        return self.category != "symbol" and len(self.name.split()) <= 4

    def styles(self) -> list[str]:
        """List the training styles it is drawn in."""
        return [style for style in self.drawings if style != sources.HELD_OUT_STYLE]


@cache
def load_catalog() -> tuple[Concept, ...]:
    """Read what the stage wrote."""
    return tuple(Concept(**entry) for entry in json.loads(CATALOG.read_text(encoding="utf-8")))


def build() -> None:
    """Fetch the packages, draw every concept, split, and write the catalogue."""
    sources.fetch(sources.STYLES)
    rows = _rows()
    drawings = _draw(rows)
    held = _hold_out(rows, drawings)
    concepts = [
        Concept(row["name"], row["category"], row["group"], row["name"] in held, drawings[row["name"]])
        for row in rows
        if len(drawings[row["name"]]) >= 2
    ]
    CATALOG.write_text(json.dumps([asdict(concept) for concept in concepts], indent=1), encoding="utf-8")
    print(f"{len(concepts)} concepts, {sum(c.held_out for c in concepts)} held out")


def _rows() -> list[dict[str, Any]]:
    """Take the table's rows of the wanted categories, each name once."""
    cldr = sources.fluent_names()
    rows: dict[str, dict[str, Any]] = {}
    for entry in sources.emoji_table():
        code = entry["unified"].lower()
        slug = cldr.get(code) or cldr.get(code.replace("-fe0f", "")) or entry["short_names"][0]
        name = slug.replace("-", " ").replace("_", " ").strip().lower()
        if entry["category"] in CATEGORIES and name not in rows and not _DULL.search(name):
            rows[name] = {
                "name": name,
                "category": CATEGORIES[entry["category"]],
                "group": entry["subcategory"],
                "file": entry["image"],
                "keys": [slug, *entry["short_names"], entry["name"] or ""],
            }
    return list(rows.values())


def _draw(rows: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """Save every concept in every style that has it; return name -> style -> path."""
    found: dict[str, dict[str, str]] = {row["name"]: {} for row in rows}
    for style in sources.STYLES:
        folder = DRAWINGS / style.name
        folder.mkdir(parents=True, exist_ok=True)
        if style.package.startswith("emoji-datasource"):
            by_file = {row["file"]: row for row in rows}
            pairs = ((by_file[file], image) for file, image in sources.bitmaps(style) if file in by_file)
        else:
            icons = sources.IconSet(style)
            pairs = ((row, image) for row in rows if (image := icons.render(row["keys"])))
        for row, image in pairs:
            path = folder / f"{row['name'].replace(' ', '-')}.png"
            image.convert("RGBA").save(path)
            found[row["name"]][style.name] = path.relative_to(WORK).as_posix()
        print(style.name, sum(style.name in styles for styles in found.values()), "drawings", flush=True)
    return found


def _hold_out(rows: list[dict[str, Any]], drawings: dict[str, dict[str, str]]) -> set[str]:
    """Choose the held-out concepts among those drawn in the held-out style and in three others."""
    usable = [
        row["name"]
        for row in rows
        if row["category"] != "symbol"
        and len(row["name"].split()) <= 3
        and sources.HELD_OUT_STYLE in drawings[row["name"]]
        and len(drawings[row["name"]]) >= 4
    ]
    return set(random.Random(SEED).sample(sorted(usable), round(HELD_OUT_CONCEPTS * len(rows))))
