"""What every format of a corpus has, and what its pairs go through."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from pydantic import BaseModel, ValidationError

from aim_sdk.training.corpora.documents import Pair
from aim_sdk.training.corpora.drops import Dropped, Unit

if TYPE_CHECKING:
    from aim_sdk.training.corpora.config import CorpusConfig
    from aim_sdk.training.corpora.images import CorpusImages
    from aim_sdk.training.corpora.shards import Shard
    from aim_sdk.training.corpora.similarity import ClipSimilarity

Record = TypeVar("Record", bound=BaseModel)


@dataclass(frozen=True)
class CorpusSource:
    """What a format needs to make pairs."""

    config: CorpusConfig
    images: CorpusImages
    clip: ClipSimilarity | None
    """Set if similarities are to be computed."""
    shard: Path
    """The file that the record is from."""


class Format(ABC):
    """One way in which corpora are kept in files."""

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    """How the names of its files end."""
    files: ClassVar[str]
    """What its files are, for messages."""
    grouped: ClassVar[bool] = False
    """Its records are lists of ``config.group`` samples of one image each."""
    compares: ClassVar[bool] = False
    """It computes similarities itself, because it pairs by them."""

    @abstractmethod
    def recognises(self, path: Path) -> bool:
        """Whether a file of these suffixes is of this format, judged by its beginning.

        Raises:
            MissingDependencyError: the package that reads such files is not installed.
        """

    @abstractmethod
    def open(self, path: Path, config: CorpusConfig) -> Shard:
        """Open a file and make its index.

        Raises:
            OSError: it cannot be opened.
        """

    @abstractmethod
    def pairs(self, record: Any, source: CorpusSource) -> Iterator[Pair | Dropped]:
        """A record's pairs before any filter but the one on image sizes, and what of the record is lost.

        Raises:
            Dropped: the record cannot be used at all.
        """

    def requires(self, config: CorpusConfig) -> tuple[str, ...]:
        """Modules of optional packages that the format needs."""
        return ()


def validated(kind: type[Record], raw: object, unit: Unit = "document") -> Record:
    """Check the fields of a record.

    Raises:
        Dropped: one is missing, or of a wrong type.
    """
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        raise Dropped(f"malformed {unit}", unit) from error


def sift(
    format: Format, found: Iterable[Pair | Dropped], source: CorpusSource, lost: list[Dropped]
) -> tuple[Pair, ...]:
    """The pairs of a document that the filters leave; what they take away goes to ``lost``.

    Raises:
        Dropped: too few are left.
    """
    config = source.config
    pairs = _keep((_cleaned(item) for item in found), lost)
    if source.clip is not None and not format.compares:
        pairs = _keep(_compared(pairs, source.clip), lost)
    pairs = _keep((_similar(pair, config) for pair in pairs), lost)
    if not format.grouped:
        lost += [Dropped(f"more than {config.max_images} images", "pair") for _ in pairs[config.max_images :]]
        pairs = pairs[: config.max_images]
    if len(pairs) < config.min_pairs:
        raise Dropped(f"fewer than {config.min_pairs} pairs")
    return tuple(pairs)


def _keep(items: Iterable[Pair | Dropped], lost: list[Dropped]) -> list[Pair]:
    kept = []
    for item in items:
        if isinstance(item, Pair):
            kept.append(item)
        else:
            lost.append(item)
    return kept


def _cleaned(pair: Pair | Dropped) -> Pair | Dropped:
    if isinstance(pair, Dropped):
        return pair
    text, answer = pair.text.strip(), pair.answer.strip()
    try:
        (text + answer).encode()
    except UnicodeEncodeError:  # JSON may hold half of a surrogate pair; tokenizers do not accept it
        return Dropped("text is not Unicode", "pair")
    return replace(pair, text=text, answer=answer) if answer else Dropped("no text", "pair")


def _compared(pairs: list[Pair], clip: ClipSimilarity) -> list[Pair | Dropped]:
    cosines = clip.matrix([pair.image for pair in pairs], [pair.answer for pair in pairs]).diagonal().tolist()
    return [
        Dropped("image undecodable", "pair") if math.isnan(cosine) else replace(pair, similarity=cosine)
        for pair, cosine in zip(pairs, cosines, strict=True)
    ]


def _similar(pair: Pair, config: CorpusConfig) -> Pair | Dropped:
    if config.similarity == "none":
        return replace(pair, similarity=None)
    if pair.similarity is None or pair.similarity >= config.min_similarity:
        return pair
    return Dropped(f"similarity below {config.min_similarity:g}", "pair")
