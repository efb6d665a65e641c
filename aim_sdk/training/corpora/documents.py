"""What a corpus is made of, whatever its files look like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aim_sdk.types import ImageInput


@dataclass(frozen=True, slots=True)
class Pair:
    """An image and the text that belongs to it."""

    image: ImageInput
    """A path, or the bytes of an image file; never decoded here."""
    text: str
    """The text next to the image, such as a human turn; empty in web corpora."""
    answer: str
    """The sentence, the caption or the response; never blank."""
    similarity: float | None = None
    """The cosine of image and answer by CLIP, if known."""


@dataclass(frozen=True, slots=True)
class Document:
    """Pairs that belong together, in the document's order."""

    id: str
    """The file and the document's number in it: unique in the corpus, and the same at every run."""
    pairs: tuple[Pair, ...]
