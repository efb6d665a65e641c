"""A small corpus of web-style pages with the drawings that come with pocket."""

import json
import random
from pathlib import Path

import aim_backends.pocket

DRAWINGS = Path(aim_backends.pocket.__file__).parent / "data" / "demo"
_SENTENCES = (
    "Here you see the {name}.",
    "{name}, as it was drawn for the collection.",
    "Our favourite is the {name} below.",
    "Nobody expected a {name} here.",
    "The {name} was sold in spring.",
    "A word about the {name}.",
)


def drawn_pages(path: Path, pages: int, seed: int = 0) -> Path:
    """Write pages of four drawings (below `DRAWINGS`) and a sentence for each; a page shows one thing twice."""
    rng = random.Random(seed)
    things: dict[str, dict[str, list[str]]] = {}
    for drawing in json.loads((DRAWINGS / "demo.json").read_text(encoding="utf-8"))["drawings"]:
        things.setdefault(drawing["category"], {}).setdefault(drawing["concept"], []).append(drawing["file"])
    topics = [topic for topic, found in sorted(things.items()) if len(found) >= 4]
    lines = []
    for _ in range(pages):
        found = things[rng.choice(topics)]
        names = rng.sample(sorted(found), 3)
        shown = [*names, rng.choice(names)]
        images = [rng.choice(found[name]) for name in shown]
        texts = [rng.choice(_SENTENCES).format(name=name) for name in shown]
        pairs = [{"image": i, "answer": t[:1].upper() + t[1:]} for i, t in zip(images, texts, strict=True)]
        lines.append(json.dumps({"pairs": pairs}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
