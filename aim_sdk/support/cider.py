"""CIDEr-D: how much a caption has in common with the references of its image, rare words counting more.

Formulas: Vedantam, Zitnick and Parikh, "CIDEr: Consensus-based image description evaluation", CVPR 2015, as the
field's pycocoevalcap computes them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from aim_sdk.errors import InputError
from aim_sdk.support.ptb import tokenize

_ORDERS: Final = 4
_SIGMA: Final = 6.0

NGram = tuple[str, ...]


def cider_d(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """CIDEr-D of each image's candidate, 0 to 10.

    Raises:
        InputError: candidates and references are for different numbers of images, or an image has no reference.
    """
    if len(candidates) != len(references) or not all(references):
        raise InputError(
            f"CIDEr-D needs one candidate and at least one reference per image, got {len(candidates)} candidates, "
            f"{len(references)} images, {sum(not captions for captions in references)} of them without a reference."
        )
    prepared = _prepare(tuple(map(tuple, references)))
    scores = []
    for candidate, captions in zip(candidates, prepared.captions, strict=True):
        vector = _Vector.of(_count(candidate), prepared.idf, prepared.unseen)
        scores.append(10.0 * sum(map(vector.similarity, captions)) / len(captions))
    return scores


@dataclass(frozen=True, slots=True)
class _Vector:
    """A caption's n-grams, weighted by tf-idf; an entry for each order of n-grams, 1 to 4."""

    weights: tuple[dict[NGram, float], ...]
    norms: tuple[float, ...]
    bigrams: int
    """A caption's length, as the reference implementation defines it."""

    @classmethod
    def of(cls, counts: Mapping[NGram, int], idf: Mapping[NGram, float], unseen: float) -> _Vector:
        weights: tuple[dict[NGram, float], ...] = tuple({} for _ in range(_ORDERS))
        for ngram, count in counts.items():
            weights[len(ngram) - 1][ngram] = count * idf.get(ngram, unseen)
        norms = tuple(math.sqrt(sum(value * value for value in order.values())) for order in weights)
        return cls(weights, norms, sum(count for ngram, count in counts.items() if len(ngram) == 2))

    def similarity(self, reference: _Vector) -> float:
        """Clipped cosine, the mean over the orders, times a Gaussian of the difference in length."""
        total = 0.0
        for mine, theirs, norm, their_norm in zip(
            self.weights, reference.weights, self.norms, reference.norms, strict=True
        ):
            if norm and their_norm:
                common = sum(
                    min(value, theirs[ngram]) * theirs[ngram] for ngram, value in mine.items() if ngram in theirs
                )
                total += common / (norm * their_norm)
        return total / _ORDERS * math.exp(-((self.bigrams - reference.bigrams) ** 2) / (2 * _SIGMA**2))


@dataclass(frozen=True, slots=True)
class _References:
    captions: list[list[_Vector]]
    idf: dict[NGram, float]
    unseen: float
    """The idf of an n-gram that no reference has: it counts as if one image had it."""


@lru_cache(maxsize=1)  # all seeds, modes and numbers of shots of a task have the same
def _prepare(references: tuple[tuple[str, ...], ...]) -> _References:
    counts = [[_count(caption) for caption in captions] for captions in references]
    images: Counter[NGram] = Counter(ngram for captions in counts for ngram in set().union(*captions))
    unseen = math.log(max(1, len(references)))
    idf = {ngram: unseen - math.log(number) for ngram, number in images.items()}
    return _References([[_Vector.of(c, idf, unseen) for c in captions] for captions in counts], idf, unseen)


def _count(caption: str) -> Counter[NGram]:
    words = tokenize(caption)
    return Counter(tuple(words[i : i + n]) for n in range(1, _ORDERS + 1) for i in range(len(words) - n + 1))
