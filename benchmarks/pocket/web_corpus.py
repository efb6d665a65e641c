"""``python -m benchmarks.pocket.web_corpus``: a corpus in MMC4's format, from the drawings that may be trained on.

Documents read like web pages: two to six images on one topic among sentences, of which some name what an image shows,
some tell a property that the page has given it (where it comes from, whose it is, what it costs), and most belong to
no image. A thing that is shown again, in another drawing, keeps its property: what stands earlier on a page helps with
what stands later, as on real pages. No page has questions and answers or a fixed form, and none holds what the
few-shot trials ask (`benchmarks.pocket.withheld`): that is checked on the finished corpus.
"""

import argparse
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from PIL import Image

from benchmarks.pocket.catalog import load_catalog
from benchmarks.pocket.config import SEED, WORK
from benchmarks.pocket.wide import load_wide
from benchmarks.pocket.withheld import Withheld, check

FOLDER: Final = WORK / "web_corpus"
LABEL_WORDS: Final = WORK / "label_words.txt"
"""New names for a page's images, for the trainer's `label_words`."""
_DOCUMENTS_A_SHARD: Final = 500
_PIXELS: Final = 288
_SMALLEST: Final = 10 * 1024
_PARTS: Final = Path(__file__).with_name("web_sentences.json")


@dataclass(frozen=True)
class Thing:
    """A named thing with its drawings, paths below the work folder."""

    name: str
    drawings: tuple[str, ...]


@dataclass(frozen=True)
class Topic:
    """Things that stand on one page, and what a page may call them; None: nothing."""

    title: str | None
    things: list[Thing]


@dataclass(frozen=True)
class _Sentence:
    text: str
    thing: str | None  # what it is about
    named: bool = False


def build(documents: int, seed: int = SEED, folder: Path = FOLDER) -> None:
    """Write ``documents`` pages in shards, and their images."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rng, topics = random.Random(seed), _topics(Withheld())
    parts: dict[str, Any] = json.loads(_PARTS.read_text(encoding="utf-8"))
    for first in range(0, documents, _DOCUMENTS_A_SHARD):
        number = first // _DOCUMENTS_A_SHARD
        pages = (_page(rng, topics, parts, folder) for _ in range(min(_DOCUMENTS_A_SHARD, documents - first)))
        lines = "".join(json.dumps(page) + "\n" for page in pages)
        (folder / f"docs_shard_{number}_v2.jsonl").write_text(lines, encoding="utf-8")
        print(f"{min(first + _DOCUMENTS_A_SHARD, documents)}/{documents} documents", flush=True)


def _topics(withheld: Withheld) -> list[Topic]:
    """Group the training split: the catalogue by its groups, the wide concepts by their categories."""
    groups: dict[str, list[Thing]] = {}
    for concept in load_catalog():
        if not concept.held_out and concept.nameable and concept.styles():
            paths = tuple(concept.drawings[style] for style in concept.styles())
            groups.setdefault(concept.group, []).append(Thing(concept.name, paths))
    for wide in load_wide():
        if wide.category not in ("", "symbol"):
            groups.setdefault(wide.category, []).append(Thing(wide.name, tuple(wide.drawings.values())))
    topics = []
    for group, members in sorted(groups.items()):
        title, things = group.replace("-", " "), [thing for thing in members if not withheld.in_text(thing.name)]
        if len(things) >= 4:
            topics.append(Topic(None if withheld.in_text(title) else title, things))
    return topics


def _page(rng: random.Random, topics: list[Topic], parts: dict[str, Any], folder: Path) -> dict[str, Any]:
    topic = rng.choice(topics)
    images = rng.choice((2, 3, 3, 4, 4, 5, 6))
    things = rng.sample(topic.things, min(len(topic.things), rng.randint(2, max(2, images - 1))))
    kind = rng.choice(sorted(parts["properties"]))
    values = rng.sample(parts["properties"][kind]["values"], len(things))
    shown = [*range(len(things)), *(rng.randrange(len(things)) for _ in range(images))][:images]
    openings = [opening for opening in parts["openings"] if topic.title or "{topic}" not in opening]
    sentences = [_Sentence(rng.choice(openings).format(topic=topic.title), None)]
    info, rows, told = [], list[int](), set[int]()
    for which in shown:
        own = list[int]()
        for sentence in _about(rng, parts, kind, things[which], values[which], which in told):
            sentences += [_Sentence(rng.choice(parts["fillers"]), None)] * (rng.random() < 0.45)
            own.append(len(sentences))
            sentences.append(sentence)
        told.add(which)
        rows.append(rng.choice(own))
        info.append(_save(rng, things[which], folder))
    sentences.append(_Sentence(rng.choice(parts["endings"]), None))
    matrix = [[_similarity(rng, things[which].name, sentence) for sentence in sentences] for which in shown]
    for row, (entry, similarities) in enumerate(zip(info, matrix, strict=True)):
        entry |= {"matched_text_index": rows[row], "matched_sim": similarities[rows[row]]}
    return {"text_list": [s.text for s in sentences], "image_info": info, "similarity_matrix": matrix}


def _about(
    rng: random.Random, parts: dict[str, Any], kind: str, thing: Thing, value: str, again: bool
) -> Iterator[_Sentence]:
    """Yield one or two sentences about an image: its name, its property, or both."""
    properties = parts["properties"][kind]
    choice = rng.random()
    if choice < 0.35 and not again:
        text = rng.choice(properties["both"]).format(name=thing.name, value=value)
        yield _Sentence(text, thing.name, True)
        return
    if choice < 0.7:
        yield _Sentence(rng.choice(parts["names"]).format(name=thing.name), thing.name, True)
    yield _Sentence(rng.choice(properties["alone"]).format(value=value), thing.name)


def _similarity(rng: random.Random, name: str, sentence: _Sentence) -> float:
    """What a contrastive model would say, roughly: high for a name, less for a property, low for anything else."""
    low, high = (0.3, 0.36) if sentence.named else (0.25, 0.29)
    if sentence.thing != name:
        low, high = 0.05, 0.2
    return round(rng.uniform(low, high), 4)


def _save(rng: random.Random, thing: Thing, folder: Path) -> dict[str, Any]:
    """Save one of a thing's drawings on white or a light colour; it is kept under its own name, once."""
    path = rng.choice(thing.drawings)
    name = path.removeprefix("drawings/").replace("/", "-")
    target = folder / "images" / name
    if not target.exists():
        drawing = Image.open(WORK / path).convert("RGBA").resize((_PIXELS, _PIXELS), Image.Resampling.BICUBIC)
        canvas = Image.new("RGBA", drawing.size, (255, 255, 255, 255))
        canvas.alpha_composite(drawing)
        canvas.convert("RGB").save(target, compress_level=1)
        if target.stat().st_size < _SMALLEST:  # the field leaves small files out; a plain drawing is stored as it is
            canvas.convert("RGB").save(target, compress_level=0)
    return {"image_name": name}


def main() -> None:
    """Build the corpus, and list words that its images may be called."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--documents", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=SEED)
    arguments = parser.parse_args()
    build(arguments.documents, arguments.seed)
    print(f"{check(FOLDER)} documents hold nothing that the trials ask")
    LABEL_WORDS.write_text("".join(f"{word}\n" for word in Withheld().other_words()), encoding="utf-8")


if __name__ == "__main__":
    main()
