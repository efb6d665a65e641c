"""Few-shot trials for the public backend: held-out concepts, labels, answer styles and drawing style; test images."""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from aim_backends.pocket.model import PocketModel
from aim_sdk.types import Demonstration, Query
from benchmarks.pocket import episodes
from benchmarks.pocket.catalog import Concept, load_catalog
from benchmarks.pocket.config import WORK
from benchmarks.pocket.features import easy_vqa_folder
from benchmarks.pocket.sources import HELD_OUT_STYLE
from benchmarks.pocket.words import COLOURS, SHAPES, Words

SHOTS: Final = (0, 1, 2, 4, 8, 16)
_MOST: Final = max(SHOTS)
_NAME: Final = "What is this?"
_FACTS: Final = {"What color is the shape?": COLOURS, "What shape is in the image?": SHAPES}


@dataclass(frozen=True)
class Trial:
    """Demonstrations, of which the first k are shown, a query, and choices among which one is right."""

    demonstrations: tuple[Demonstration, ...]
    query: Query
    choices: tuple[str, ...]
    right: int


class Trials:
    """Makes trials. The same task, seed and number give the same trial, whatever else is drawn."""

    def __init__(self, model: PocketModel) -> None:
        self._words = Words(model)
        held_out = [concept for concept in load_catalog() if concept.held_out and concept.nameable]
        self._groups = _by(held_out, "group", 1)
        self._categories = _by(held_out, "category", _MOST // 2 + 1)
        self._facts = {split: {q: _pictures(split, q) for q in _FACTS} for split in ("train", "test")}
        self.tasks: dict[str, Callable[[random.Random], Trial]] = {
            "names of 2": lambda rng: self._names(rng, 2),
            "names of 4": lambda rng: self._names(rng, 4),
            "categories": self._categories_to_labels,
            "other words": self._other_words,
            "answer format": self._format,
        }

    def make(self, task: str, seed: int, number: int) -> Trial:
        """Draw one trial."""
        return self.tasks[task](random.Random(f"{task}:{seed}:{number}"))

    def _names(self, rng: random.Random, classes: int) -> Trial:
        """Concepts of different groups, each with a label; the query is one of them in the held-out style."""
        concepts = [rng.choice(self._groups[group]) for group in rng.sample(sorted(self._groups), classes)]
        drawings = [_shuffled(rng, concept.styles()) for concept in concepts]
        pictures = [lambda n, c=c, d=d: _drawing(c, d[n % len(d)]) for c, d in zip(concepts, drawings, strict=True)]
        return self._labelled(rng, _NAME, pictures, [_drawing(c, HELD_OUT_STYLE) for c in concepts])

    def _categories_to_labels(self, rng: random.Random) -> Trial:
        """Two categories, each with a label; every picture is of another concept."""
        pools = [_shuffled(rng, self._categories[c]) for c in rng.sample(sorted(self._categories), 2)]
        pictures = [lambda n, pool=pool: _drawing(pool[n + 1], rng.choice(pool[n + 1].styles())) for pool in pools]
        return self._labelled(rng, _NAME, pictures, [_drawing(pool[0], HELD_OUT_STYLE) for pool in pools])

    def _other_words(self, rng: random.Random) -> Trial:
        """Two colours or two shapes, each called by another word."""
        question = rng.choice(sorted(_FACTS))
        values = rng.sample(_FACTS[question], 2)
        shown, asked = (self._facts[split][question] for split in ("train", "test"))
        pictures = [lambda n, v=v: rng.choice(shown[v]) for v in values]
        return self._labelled(rng, question, pictures, [rng.choice(asked[v]) for v in values])

    def _labelled(
        self, rng: random.Random, question: str, pictures: Sequence[Callable[[int], Path]], queries: Sequence[Path]
    ) -> Trial:
        """Give every class a label; each run of demonstrations, however long, shows the classes equally often."""
        classes = len(pictures)
        labels = self._words.labels(rng, classes, held_out=True, made_up=0.0)
        order = [c for _ in range(_MOST // classes) for c in rng.sample(range(classes), classes)]
        shown = [
            Demonstration(pictures[c](order[:place].count(c)), question, labels[c]) for place, c in enumerate(order)
        ]
        right = rng.randrange(classes)
        return Trial(tuple(shown), Query(queries[right], question), tuple(labels), right)

    def _format(self, rng: random.Random) -> Trial:
        """A colour or a shape, told in the demonstrations' way, which no training prompt had."""
        question = rng.choice(sorted(_FACTS))
        style, other = rng.sample(episodes.HELD_OUT_STYLES, 2)
        shown, asked = (self._facts[split][question] for split in ("train", "test"))
        answer, wrong = rng.sample(_FACTS[question], 2)
        values = [rng.choice(_FACTS[question]) for _ in range(_MOST)]
        demonstrations = [Demonstration(rng.choice(shown[v]), question, episodes.styled(style, v)) for v in values]
        choices = [*(episodes.styled(s, answer) for s in (style, other)), episodes.styled(style, wrong), answer]
        query = Query(rng.choice(asked[answer]), question)
        return Trial(tuple(demonstrations), query, tuple(dict.fromkeys(choices)), 0)


def _by(concepts: Sequence[Concept], key: str, smallest: int) -> dict[str, list[Concept]]:
    found: dict[str, list[Concept]] = {}
    for concept in concepts:
        found.setdefault(getattr(concept, key), []).append(concept)
    return {name: members for name, members in found.items() if len(members) >= smallest}


def _shuffled(rng: random.Random, items: Sequence[Any]) -> list[Any]:
    return rng.sample(items, len(items))


def _drawing(concept: Concept, style: str) -> Path:
    return WORK / concept.drawings[style]


def _pictures(split: str, question: str) -> dict[str, list[Path]]:
    folder = easy_vqa_folder(split)
    found: dict[str, list[Path]] = {answer: [] for answer in _FACTS[question]}
    for text, answer, image in json.loads((folder / "questions.json").read_text(encoding="utf-8")):
        if answer in found and text.split()[:2] == question.lower().split()[:2]:
            found[answer].append(folder / "images" / f"{image}.png")
    return found
