"""Episodes with image demonstrations: names (A), categories (B), answer styles (C), labels (V) or true answers (T)."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.pocket import episodes
from benchmarks.pocket.corpus import NAME, PictureCorpus
from benchmarks.pocket.prompts import Visual
from benchmarks.pocket.words import COLOURS, SHAPES

PictureKey = tuple[str, int, str]  # ("drawing", concept, style) or ("easy-vqa", image, "")
_FACTS: Final = {"What color is the shape?": COLOURS, "What shape is in the image?": SHAPES}


@dataclass(frozen=True)
class TableRow:
    """What an episode is: task, shots, classes."""

    task: str
    shots: int
    classes: int

    def __str__(self) -> str:
        return f"{self.task}{self.classes or ''}k{self.shots}"


@dataclass(frozen=True)
class ShownPicture:
    """A demonstration: the picture and its answer."""

    picture: PictureKey
    answer: str


@dataclass(frozen=True)
class AimEpisode:
    """k demonstrations, a query picture, and the candidates among which one is right."""

    cell: TableRow
    held_out: bool
    question: str
    shown: tuple[ShownPicture, ...]
    query: PictureKey
    candidates: tuple[str, ...]
    right: int


class AimEpisodeMaker:
    """Draws episodes; ``held_out``: held-out concepts, query in the held-out style; ``new_labels``: held-out labels."""

    def __init__(self, corpus: PictureCorpus) -> None:
        self.corpus = corpus
        self._facts = {asked: self._pictures_by_answer(asked) for asked in _FACTS}

    def visual(self, key: PictureKey) -> Visual:
        """Return a picture's features, unaugmented."""
        source, index, style = key
        return Visual(self.corpus.view(index, style) if source == "drawing" else self.corpus.easy_vqa.matrix[index])

    def make(
        self,
        rng: random.Random,
        cell: TableRow,
        held_out: bool,
        new_labels: bool,
        question: str = NAME,
        *,
        wide: bool = False,
    ) -> AimEpisode:
        """Draw one episode of a cell; ``wide``: names are bound to concepts half of which are wide ones."""
        if cell.task == "C":
            return self._styles(rng, cell, held_out, new_labels, question)
        if cell.task == "T":
            return self._true_answers(rng, cell)
        labels = self.corpus.words.labels(rng, cell.classes, new_labels)
        if cell.task == "V":
            return self._facts_episode(rng, cell, labels)
        asked, pools = self._wide_pools(rng, cell) if wide else self._pools(rng, cell, held_out)
        query_concept = pools[asked][0]
        if cell.task == "B":
            pools[asked] = pools[asked][1:]
        query = self._query(rng, query_concept, held_out)
        order = [index % cell.classes for index in range(cell.shots)]
        rng.shuffle(order)
        shown: list[ShownPicture] = []
        used = {query}
        for position, which in enumerate(order):
            concept = pools[which][order[:position].count(which) % len(pools[which])]
            picture = self._fresh(rng, concept, used)
            used.add(picture)
            shown.append(ShownPicture(picture, labels[which]))
        return AimEpisode(cell, held_out, question, tuple(shown), query, tuple(labels), asked)

    def _pools(self, rng: random.Random, cell: TableRow, held_out: bool) -> tuple[int, list[list[int]]]:
        """Return the class asked for, and each class's concepts."""
        concepts = self._concepts(held_out)
        asked = rng.randrange(cell.classes)
        if cell.task == "A":
            groups = self.corpus.by_key(concepts, "group", smallest=1)
            chosen = rng.sample(sorted(groups), cell.classes)  # concepts of different groups
            return asked, [[rng.choice(groups[group])] for group in chosen]
        groups = self.corpus.by_key(concepts, "category", smallest=8)
        return asked, [rng.sample(groups[name], 8) for name in rng.sample(sorted(groups), cell.classes)]

    def _wide_pools(self, rng: random.Random, cell: TableRow) -> tuple[int, list[list[int]]]:
        drawn = self.corpus.draw_distinct(rng, cell.classes, drawings=2)
        return rng.randrange(cell.classes), [[concept] for concept in drawn]

    def _concepts(self, held_out: bool) -> Sequence[int]:
        return self.corpus.held_out if held_out else self.corpus.training

    def _query(self, rng: random.Random, concept: int, held_out: bool) -> PictureKey:
        if held_out:
            return "drawing", concept, "emojione"
        return "drawing", concept, rng.choice(self.corpus.styles(concept))

    def _fresh(self, rng: random.Random, concept: int, used: set[PictureKey]) -> PictureKey:
        """Draw a training style of a concept that the episode does not show yet, where there is one."""
        pictures: list[PictureKey] = [("drawing", concept, style) for style in self.corpus.styles(concept)]
        return rng.choice([picture for picture in pictures if picture not in used] or pictures)

    def _styles(self, rng: random.Random, cell: TableRow, held_out: bool, new: bool, question: str) -> AimEpisode:
        """The answer is the name in the style of the demonstrations' answers."""
        style, other = episodes.answer_style(rng, new), episodes.answer_style(rng, new)
        while other == style:
            other = episodes.answer_style(rng, new)
        *concepts, asked, wrong = rng.sample(self._concepts(held_out), cell.shots + 2)
        shown = [
            ShownPicture(self._fresh(rng, c, set()), episodes.styled(style, self.corpus.name(c))) for c in concepts
        ]
        name, stranger = self.corpus.name(asked), self.corpus.name(wrong)
        candidates = [
            episodes.styled(style, name),
            episodes.styled(other, name),
            episodes.styled(style, stranger),
            name,
        ]
        query = self._query(rng, asked, held_out)
        return AimEpisode(cell, held_out, question, tuple(shown), query, tuple(dict.fromkeys(candidates)), 0)

    def _facts_episode(self, rng: random.Random, cell: TableRow, labels: list[str]) -> AimEpisode:
        """A label for each colour or each shape of easy-VQA's training images."""
        question = rng.choice(sorted(self._facts))
        facts = self._facts[question]
        chosen = rng.sample(sorted(facts), cell.classes)
        asked = rng.randrange(cell.classes)
        order = [index % cell.classes for index in range(cell.shots)]
        rng.shuffle(order)
        shown = [ShownPicture(("easy-vqa", rng.choice(facts[chosen[c]]), ""), labels[c]) for c in order]
        query = ("easy-vqa", rng.choice(facts[chosen[asked]]), "")
        return AimEpisode(cell, False, question, tuple(shown), query, tuple(labels), asked)

    def _true_answers(self, rng: random.Random, cell: TableRow) -> AimEpisode:
        """Colours or shapes of easy-VQA's training images, each by its own name."""
        question = rng.choice(sorted(self._facts))
        facts = self._facts[question]
        *shown, asked = [rng.choice([answer for answer in facts if facts[answer]]) for _ in range(cell.shots + 1)]
        pictures = [ShownPicture(("easy-vqa", rng.choice(facts[answer]), ""), answer) for answer in shown]
        query = ("easy-vqa", rng.choice(facts[asked]), "")
        return AimEpisode(cell, False, question, tuple(pictures), query, tuple(facts), list(facts).index(asked))

    def _pictures_by_answer(self, question: str) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {answer: [] for answer in _FACTS[question]}
        for image, name in self.corpus.shapes:
            colour, shape = name.split()
            found[colour if question.startswith("What color") else shape].append(image)
        return found
