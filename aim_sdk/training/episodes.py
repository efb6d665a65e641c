"""From documents to episodes: earlier pairs become demonstrations, the text of a later pair is learnt."""

from __future__ import annotations

import hashlib
import os
import random
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from aim_sdk.files.images import image_digest
from aim_sdk.training.augmentation import Augmentation
from aim_sdk.training.config import EpisodeSettings
from aim_sdk.training.corpora.documents import Document, Pair
from aim_sdk.training.episode import Episode
from aim_sdk.types import Demonstration, ImageInput, Query

_SENTENCE_END = re.compile(r"""[.!?。！？…]["'”’)\]]*(?=\s|$)|[。！？]""")


class EpisodeMaker:
    """Makes a document's episodes; what is drawn depends on seed, epoch and document alone.

    Args:
        settings: the run's.
        seed: another one draws other episodes.
        common: words of the corpus that tell no thing from another, which new names need:
            `aim_sdk.training.things.common_words`.
    """

    def __init__(self, settings: EpisodeSettings, *, seed: int, common: frozenset[str] = frozenset()) -> None:
        self.settings, self.seed = settings, seed
        self._augmentation = Augmentation(settings, common)

    def episodes(self, document: Document, epoch: int) -> list[Episode]:
        """Return the document's episodes at an epoch; none if the document has too few pairs."""
        fewest, most = self.settings.shots
        pairs = [self._shortened(pair) for pair in document.pairs]
        if len(pairs) <= fewest:
            return []
        rng = random.Random(f"{self.seed}:{epoch}:{document.id}")
        draw = rng.random()
        if draw < self.settings.labels:
            shots = rng.randint(fewest, most)
            return [self._augmentation.naming(rng, document.id, pairs, shots)]
        shown = [_demonstration(pair, document.id, place) for place, pair in enumerate(pairs)]
        if draw < self.settings.labels + self.settings.styles:
            shown = self._augmentation.styled(rng, shown)
        targets = rng.sample(range(fewest, len(shown)), min(self.settings.targets, len(shown) - fewest))
        return [self._episode(rng, shown, target, document.id) for target in sorted(targets)]

    def _episode(self, rng: random.Random, shown: Sequence[Demonstration], target: int, document: str) -> Episode:
        """The pairs right before the target are its demonstrations: they are nearest to its topic."""
        fewest, most = self.settings.shots
        shots = rng.randint(fewest, min(most, target))
        demonstrations, asked = tuple(shown[target - shots : target]), shown[target]
        content = "\0".join(str(item.metadata["id"]) for item in (*demonstrations, asked))
        key = hashlib.sha256(content.encode()).hexdigest()
        pictures = tuple(item.image for item in demonstrations)
        query = Query(asked.image, asked.text)
        return Episode(demonstrations, query, asked.answer, document, pictures, key=key)

    def _shortened(self, pair: Pair) -> Pair:
        limit = self.settings.max_characters
        return replace(pair, text=cut(pair.text, limit) or self.settings.text, answer=cut(pair.answer, limit))


def cut(text: str, limit: int) -> str:
    """Cut a text at the last sentence's end within ``limit`` characters, or between words if there is none."""
    text = text.strip()
    if len(text) <= limit:
        return text
    # Look at the whole text: no sentence ends after the "3." of "3.14", even if the limit is there.
    ends = [end for match in _SENTENCE_END.finditer(text) if (end := match.end()) <= limit]
    if ends:
        return text[: ends[-1]]
    words, _, rest = text[: limit + 1].rpartition(" ")
    return words.rstrip() or rest[:limit]


def _demonstration(pair: Pair, document: str, place: int) -> Demonstration:
    content = hashlib.sha256(f"{_stamp(pair.image)}\0{pair.text}\0{pair.answer}".encode()).hexdigest()[:24]
    return Demonstration(pair.image, pair.text, pair.answer, {"id": f"{document}#{place}:{content}"})


def _stamp(image: ImageInput) -> str:
    """A value that changes with an image, without reading a file."""
    if isinstance(image, bytes):
        return image_digest(image)
    try:
        status = os.stat(cast("str | os.PathLike[str]", image))  # a corpus gives files or their bytes
    except OSError:
        return ""
    return f"{status.st_size}:{status.st_mtime_ns}"
