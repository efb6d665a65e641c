"""What the stages draw training items from: concepts, drawings, easy-VQA and words, with the splits kept apart."""

import random
from collections.abc import Sequence
from typing import Final

from torch import Tensor

from aim_backends.pocket.model import PocketModel
from benchmarks.pocket import features
from benchmarks.pocket.catalog import Concept, load_catalog
from benchmarks.pocket.prompts import Prompt, Text, Visual, ask
from benchmarks.pocket.sources import HELD_OUT_STYLE
from benchmarks.pocket.wide import WideConcept, load_wide
from benchmarks.pocket.words import COLOURS, SHAPES, Words

NAME: Final = "What is this?"
KIND: Final = "What kind of thing is this?"
_WIDE: Final = 0.5  # share of wide concepts among those drawn


class PictureCorpus:
    """Concepts by split, and the pictures that may be used for each."""

    def __init__(self, model: PocketModel) -> None:
        self.words = Words(model)
        self.concepts: tuple[Concept, ...] = (*load_catalog(), *map(_concept, load_wide()))
        self.catalogued = len(load_catalog())  # the wide concepts come after
        self._drawings, self._wide_drawings = features.load_drawings(), features.load_wide_drawings()
        self.easy_vqa = features.load_easy_vqa("train")
        nameable = [index for index, concept in enumerate(load_catalog()) if concept.nameable]
        self.training = [index for index in nameable if not self.concepts[index].held_out]
        self.held_out = [index for index in nameable if self.concepts[index].held_out]
        self._drawn = [
            index for index, concept in enumerate(load_catalog()) if not concept.held_out and concept.styles()
        ]
        self._wide = range(self.catalogued, len(self.concepts))
        self._paired = [index for index in (*self._drawn, *self._wide) if len(self.styles(index)) > 1]
        self._open_questions = [q for q in self.easy_vqa.questions if q.answer not in ("yes", "no")]
        self.shapes = self._colour_and_shape()
        self.described = dict(self.shapes)
        self._facts = [question for question in self.easy_vqa.questions if question.image in self.described]

    def name(self, concept: int) -> str:
        return self.concepts[concept].name

    def styles(self, concept: int) -> list[str]:
        """List the training styles of a concept."""
        return self.concepts[concept].styles()

    def view(self, concept: int, style: str, rng: random.Random | None = None) -> Tensor:
        """Return a drawing's features ``(16, 1416)``: the plain view, or a random one."""
        if concept < self.catalogued:
            rows, matrix = self._drawings.pictures[concept, style].rows, self._drawings.matrix
        else:
            rows, matrix = (
                self._wide_drawings.pictures[concept - self.catalogued, style].rows,
                self._wide_drawings.matrix,
            )
        return matrix[rng.choice(rows) if rng else rows[0]]

    def any_view(self, rng: random.Random, concept: int) -> Visual:
        """Draw a training style and a view."""
        return Visual(self.view(concept, rng.choice(self.styles(concept)), rng))

    def held_out_view(self, concept: int) -> Visual:
        """Return the drawing in the held-out style."""
        return Visual(self.view(concept, HELD_OUT_STYLE))

    def has_held_out_style(self, concept: int) -> bool:
        return HELD_OUT_STYLE in self.concepts[concept].drawings

    def draw_concept(self, rng: random.Random) -> int:
        """Draw a training concept of any kind, half of them wide ones."""
        return rng.choice(self._wide if rng.random() < _WIDE else self._drawn)

    def draw_distinct(self, rng: random.Random, number: int, drawings: int = 1) -> list[int]:
        """Draw nameable training concepts of which no two share a word, with at least so many drawings each."""
        while True:
            drawn = [rng.choice(self._wide if rng.random() < _WIDE else self.training) for _ in range(number)]
            words = [word for concept in drawn for word in set(self.name(concept).split())]
            if len(set(words)) == len(words) and all(len(self.styles(concept)) >= drawings for concept in drawn):
                return drawn

    def draw_pair(self, rng: random.Random) -> tuple[int, Visual, Visual]:
        """Draw a training concept and two drawings of it, in two styles."""
        concept = rng.choice(self._paired)
        first, second = (Visual(self.view(concept, s, rng)) for s in rng.sample(self.styles(concept), 2))
        return concept, first, second

    def by_key(self, concepts: Sequence[int], key: str, smallest: int = 6) -> dict[str, list[int]]:
        """Group concepts by ``category`` or ``group``, dropping small groups."""
        groups: dict[str, list[int]] = {}
        for index in concepts:
            groups.setdefault(getattr(self.concepts[index], key), []).append(index)
        return {name: members for name, members in sorted(groups.items()) if len(members) >= smallest}

    def naming(self, rng: random.Random) -> Prompt:
        """One drawing, its name."""
        concept = self.draw_concept(rng)
        return [*ask(NAME, self.any_view(rng, concept)), Text(f" {self.name(concept)}\n", True)]

    def category(self, rng: random.Random) -> Prompt:
        """One drawing, its category."""
        concept = self.draw_concept(rng)
        while not self.concepts[concept].category:
            concept = self.draw_concept(rng)
        answer = f" {self.concepts[concept].category}\n"
        return [*ask(KIND, self.any_view(rng, concept)), Text(answer, True)]

    def visual_question(self, rng: random.Random) -> Prompt:
        """One question of easy-VQA's training split; half of them ask for a colour or a shape."""
        question = rng.choice(self.easy_vqa.questions if rng.random() < 0.6 else self._open_questions)
        image = Visual(self.easy_vqa.matrix[question.image])
        return [*ask(question.text, image), Text(f" {question.answer}\n", True)]

    def fact(self, rng: random.Random) -> features.QuestionFeatures:
        """One question of easy-VQA's training split about an image in `described`."""
        return rng.choice(self._facts)

    def single(self, rng: random.Random) -> Prompt:
        """One single-image item of any kind."""
        choice = rng.random()
        if choice < 0.55:
            return self.naming(rng)
        return self.category(rng) if choice < 0.68 else self.visual_question(rng)

    def other_single(self, rng: random.Random) -> Prompt:
        """One single-image item that does not ask for a drawing's name."""
        return self.category(rng) if rng.random() < 0.4 else self.visual_question(rng)

    def _colour_and_shape(self) -> list[tuple[int, str]]:
        """List (image, "colour shape") of easy-VQA images whose questions tell both."""
        found: dict[int, dict[str, str]] = {}
        for question in self.easy_vqa.questions:
            for kind, answers in (("colour", COLOURS), ("shape", SHAPES)):
                if question.answer in answers:
                    found.setdefault(question.image, {})[kind] = question.answer
        return [(image, f"{facts['colour']} {facts['shape']}") for image, facts in found.items() if len(facts) == 2]


def _concept(wide: WideConcept) -> Concept:
    return Concept(wide.name, wide.category, "", False, wide.drawings)
