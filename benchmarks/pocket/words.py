"""Label words: single-token words and made-up syllables, each split into training and held-out by a checksum."""

import random
import re
import zlib
from collections.abc import Sequence
from typing import Final

from aim_backends.pocket.model import PocketModel
from benchmarks.pocket.catalog import CATEGORIES, load_catalog

COLOURS: Final = ("red", "blue", "green", "yellow", "gray", "black", "brown", "teal")
SHAPES: Final = ("circle", "rectangle", "triangle")
_FIRST_TOKEN: Final = 300  # smaller ids are bytes and fragments
_WORD_PARTS: Final = 8  # one word in eight is held out
_NONCE_PARTS: Final = 6
_SYLLABLES: Final = ("bcdfghjklmnprstvwz", "aeiou", "bdfgklmnprstvxz", ["", "", "o", "a", "er", "le", "ix", "um"])


class Words:
    """The label words of a tokenizer."""

    def __init__(self, model: PocketModel) -> None:
        self._model = model
        self._used = _words_in_training_prompts()
        pieces = (model.decode([token]) for token in range(_FIRST_TOKEN, model.lm.spec.vocabulary))
        words = [piece[1:] for piece in pieces if re.fullmatch(r" [a-z]{4,9}", piece)]
        self.training = [word for word in words if _checksum(word) % _WORD_PARTS]
        self.held_out = [word for word in words if _checksum(word) % _WORD_PARTS == 0 and word not in self._used]

    def labels(self, rng: random.Random, number: int, held_out: bool = False, made_up: float = 0.3) -> list[str]:
        """Draw labels that differ in their first token, all words or all made up."""
        invent = rng.random() < made_up
        while True:
            if invent:
                drawn = [self.invent(rng, held_out) for _ in range(number)]
            else:
                drawn = rng.sample(self.held_out if held_out else self.training, number)
            if len({self.first_token(word) for word in drawn}) == number:
                return drawn

    def invent(self, rng: random.Random, held_out: bool = False) -> str:
        """Make up a word of one or two syllables."""
        while True:
            word = "".join(rng.choice(part) for part in _SYLLABLES)
            if (_checksum(word) % _NONCE_PARTS == 0) == held_out and word not in self._used:
                return word

    def first_token(self, word: str) -> int:
        """Return the token that an answer with this word starts with."""
        return self._model.tokenize(f" {word}")[0]

    def phrase(self, rng: random.Random, counts: Sequence[int], held_out: bool = False) -> str:
        """Join a few random words."""
        return " ".join(rng.sample(self.held_out if held_out else self.training, rng.choice(counts)))


def _checksum(word: str) -> int:
    return zlib.crc32(word.encode())


def _words_in_training_prompts() -> set[str]:
    names = " ".join(concept.name for concept in load_catalog())
    return {*names.split(), *CATEGORIES.values(), *COLOURS, *SHAPES, "shape", "color", "image", "contain", "present"}
