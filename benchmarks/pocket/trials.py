"""``python -m benchmarks.pocket.trials``: few-shot trials as evaluation tasks, a folder each below ``work/trials``.

Held-out concepts, labels, answer styles and drawing style; easy-VQA's test images. Each query names its demonstrations
and the choices among which one is right; a choice ends in a newline, as an answer does in pocket's prompt. Then:

    python -m benchmarks.evaluation.run benchmarks/evaluation/pocket-few-shot-2026-11-29.yaml

``--development`` draws the same tasks from what may be trained on, into ``work/trials-development``: settings are
chosen by those, and the table's trials stay unseen.
"""

import argparse
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from aim_backends.pocket.model import PocketModel
from aim_sdk.types import Demonstration, Query
from benchmarks.pocket import episodes
from benchmarks.pocket.carrier import load_model
from benchmarks.pocket.catalog import Concept, load_catalog
from benchmarks.pocket.config import SHIPPED, WORK
from benchmarks.pocket.features import easy_vqa_folder
from benchmarks.pocket.sources import HELD_OUT_STYLE
from benchmarks.pocket.words import COLOURS, SHAPES, Words

TRIALS: Final = WORK / "trials"
DEVELOPMENT: Final = WORK / "trials-development"
_MOST: Final = 16
"""Demonstrations of a trial."""
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
    """Makes trials. The same task, seed and number give the same trial, whatever else is drawn.

    Args:
        model: whose tokens tell labels apart.
        development: of training concepts, labels, answer styles and images; each concept's last style is asked for.
    """

    def __init__(self, model: PocketModel, *, development: bool = False) -> None:
        self._words, self._held_out = Words(model), not development
        of_split = [c for c in load_catalog() if c.held_out == self._held_out and c.nameable]
        concepts = [c for c in of_split if self._held_out or len(c.styles()) > 2]
        self._groups = _by(concepts, "group", 1)
        self._categories = _by(concepts, "category", _MOST // 2 + 1)
        self._facts = {split: {q: pictures(split, q) for q in _FACTS} for split in ("train", "test")}
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
        drawings = [_shuffled(rng, self._shown_styles(concept)) for concept in concepts]
        pictures = [lambda n, c=c, d=d: _drawing(c, d[n % len(d)]) for c, d in zip(concepts, drawings, strict=True)]
        return self._labelled(rng, _NAME, pictures, [self._asked(concept) for concept in concepts])

    def _categories_to_labels(self, rng: random.Random) -> Trial:
        """Two categories, each with a label; every picture is of another concept."""
        pools = [_shuffled(rng, self._categories[c]) for c in rng.sample(sorted(self._categories), 2)]
        pictures = [
            lambda n, pool=pool: _drawing(pool[n + 1], rng.choice(self._shown_styles(pool[n + 1]))) for pool in pools
        ]
        return self._labelled(rng, _NAME, pictures, [self._asked(pool[0]) for pool in pools])

    def _other_words(self, rng: random.Random) -> Trial:
        """Two colours or two shapes, each called by another word."""
        question = rng.choice(sorted(_FACTS))
        values = rng.sample(_FACTS[question], 2)
        shown, asked = self._shown_and_asked(question)
        pictures = [lambda n, v=v: rng.choice(shown[v]) for v in values]
        return self._labelled(rng, question, pictures, [rng.choice(asked[v]) for v in values])

    def _labelled(
        self, rng: random.Random, question: str, pictures: Sequence[Callable[[int], Path]], queries: Sequence[Path]
    ) -> Trial:
        """Give every class a label; each run of demonstrations, however long, shows the classes equally often."""
        classes = len(pictures)
        labels = self._words.labels(rng, classes, held_out=self._held_out, made_up=0.0)
        order = [c for _ in range(_MOST // classes) for c in rng.sample(range(classes), classes)]
        shown = [
            Demonstration(pictures[c](order[:place].count(c)), question, labels[c]) for place, c in enumerate(order)
        ]
        right = rng.randrange(classes)
        return Trial(tuple(shown), Query(queries[right], question), tuple(labels), right)

    def _format(self, rng: random.Random) -> Trial:
        """A colour or a shape, told in the demonstrations' way, which no training prompt had."""
        question = rng.choice(sorted(_FACTS))
        style, other = rng.sample(episodes.HELD_OUT_STYLES, 2) if self._held_out else _training_styles(rng)
        shown, asked = self._shown_and_asked(question)
        answer, wrong = rng.sample(_FACTS[question], 2)
        values = [rng.choice(_FACTS[question]) for _ in range(_MOST)]
        demonstrations = [Demonstration(rng.choice(shown[v]), question, episodes.styled(style, v)) for v in values]
        choices = [*(episodes.styled(s, answer) for s in (style, other)), episodes.styled(style, wrong), answer]
        query = Query(rng.choice(asked[answer]), question)
        return Trial(tuple(demonstrations), query, tuple(dict.fromkeys(choices)), 0)

    def _shown_styles(self, concept: Concept) -> list[str]:
        return concept.styles() if self._held_out else concept.styles()[:-1]

    def _asked(self, concept: Concept) -> Path:
        return _drawing(concept, HELD_OUT_STYLE if self._held_out else concept.styles()[-1])

    def _shown_and_asked(self, question: str) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
        """Pictures by answer. Those of development are both from the training split, and never the same ones."""
        shown = self._facts["train"][question]
        if self._held_out:
            return shown, self._facts["test"][question]
        of_each = {value: list(dict.fromkeys(pictures)) for value, pictures in shown.items()}
        return {v: of[::2] for v, of in of_each.items()}, {v: of[1::2] for v, of in of_each.items()}


def _training_styles(rng: random.Random) -> list[episodes.AnswerStyle]:
    """Two of them that write an answer differently."""
    drawn = dict[str, episodes.AnswerStyle]()
    while len(drawn) < 2:
        style = episodes.answer_style(rng)
        drawn.setdefault(episodes.styled(style, "word"), style)
    return list(drawn.values())


def _by(concepts: Sequence[Concept], key: str, smallest: int) -> dict[str, list[Concept]]:
    found: dict[str, list[Concept]] = {}
    for concept in concepts:
        found.setdefault(getattr(concept, key), []).append(concept)
    return {name: members for name, members in found.items() if len(members) >= smallest}


def _shuffled(rng: random.Random, items: Sequence[Any]) -> list[Any]:
    return rng.sample(items, len(items))


def _drawing(concept: Concept, style: str) -> Path:
    return WORK / concept.drawings[style]


def pictures(split: str, question: str) -> dict[str, list[Path]]:
    """Easy-VQA's images of a split by their answer to a question."""
    folder = easy_vqa_folder(split)
    found: dict[str, list[Path]] = {answer: [] for answer in _FACTS[question]}
    for text, answer, image in json.loads((folder / "questions.json").read_text(encoding="utf-8")):
        if answer in found and text.split()[:2] == question.lower().split()[:2]:
            found[answer].append(folder / "images" / f"{image}.png")
    return found


def write(trials: Trials, seeds: Sequence[int], number: int, output: Path = TRIALS) -> None:
    """Write each task's folder: ``task.yaml``, ``queries.jsonl`` and ``support.jsonl``."""
    for task in trials.tasks:
        folder = output / task.replace(" ", "-")
        folder.mkdir(parents=True, exist_ok=True)
        made = {f"{seed}-{n}": trials.make(task, seed, n) for seed in seeds for n in range(number)}
        _write_lines(folder / "queries.jsonl", (_query(name, trial) for name, trial in made.items()))
        _write_lines(folder / "support.jsonl", (line for name, trial in made.items() for line in _shown(name, trial)))
        config = {
            "name": f"pocket-{folder.name}",
            "title": f"Pocket's trials: {task}",
            "kind": "classification",
            "metric": "exact_match",
            "loader": "jsonl",
            "files": {"queries": "queries.jsonl", "support": "support.jsonl"},
            "source": "python -m benchmarks.pocket.trials",
            "licence": "of the drawings, by style: see benchmarks/pocket/README.md",
            "splits": "what may be trained on: see benchmarks/pocket/trials.py"
            if output == DEVELOPMENT
            else "held-out concepts, style, labels and answer styles; easy-VQA's images are of its test split",
        }
        (folder / "task.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")


def _query(name: str, trial: Trial) -> dict[str, Any]:
    choices = [f"{choice}\n" for choice in trial.choices]
    shown = [f"{name}-{place}" for place in range(len(trial.demonstrations))]
    asked = {"id": name, "image": str(trial.query.image), "text": trial.query.text, "answer": choices[trial.right]}
    return {**asked, "choices": choices, "demonstrations": shown}


def _shown(name: str, trial: Trial) -> Iterator[dict[str, Any]]:
    for place, item in enumerate(trial.demonstrations):
        yield {"id": f"{name}-{place}", "image": str(item.image), "text": item.text, "answer": item.answer}


def _write_lines(path: Path, lines: Iterator[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def main() -> None:
    """Draw the trials; ``--n 500`` is the whole plan, the table of the documentation has 20 of each seed."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--n", type=int, default=20, help="trials of a seed and task")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--development", action="store_true", help="of what may be trained on")
    options = parser.parse_args()
    trials = Trials(load_model(SHIPPED), development=options.development)
    write(trials, options.seeds, options.n, DEVELOPMENT if options.development else TRIALS)


if __name__ == "__main__":
    main()
