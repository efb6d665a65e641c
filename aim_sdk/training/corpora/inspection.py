"""What a corpus holds, and what its filters leave of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from aim_sdk.errors import ImageError
from aim_sdk.files.images import load_image
from aim_sdk.training.corpora.drops import Dropped, Drops

if TYPE_CHECKING:
    from aim_sdk.training.corpora.corpus import Corpus
    from aim_sdk.training.corpora.documents import Document


class Inspection:
    """Counts of a corpus, valid at any moment of the scan.

    Args:
        corpus: what to look at.
        decode: decode the images of the documents that are kept, too; those that cannot be decoded are counted.
    """

    def __init__(self, corpus: Corpus, *, decode: bool = False) -> None:
        self.corpus, self.drops, self._decode = corpus, Drops(), decode
        self.documents = 0
        """Documents that were examined."""
        self.pairs_per_document: Counter[int] = Counter()
        """How many of the kept documents have each number of pairs."""

    @property
    def kept(self) -> int:
        """Documents that the filters leave."""
        return self.pairs_per_document.total()

    @property
    def pairs(self) -> int:
        """Pairs in the documents that are kept."""
        return sum(pairs * documents for pairs, documents in self.pairs_per_document.items())

    def scan(self, limit: int | None = None) -> Iterator[Document | None]:
        """Look at the documents in the order of the files, at most ``limit``; None stands for one that is dropped."""
        for file, index in islice(self._places(), limit):
            document = self.corpus.document(file, index, self.drops)
            self.documents += 1
            if document is not None:
                self.pairs_per_document[len(document.pairs)] += 1
                if self._decode:
                    self._count_undecodable(document)
            yield document

    def summary(self) -> dict[str, Any]:
        """All counts, for JSON."""
        drops = self.drops
        return {
            "format": self.corpus.format.name,
            "files": len(self.corpus.files),
            "documents": self.documents,
            "kept": self.kept,
            "pairs": self.pairs,
            "pairs_per_document": {str(pairs): count for pairs, count in sorted(self.pairs_per_document.items())},
            "dropped": [
                {"what": drops.units[reason], "reason": reason, "count": count, "first": drops.examples[reason]}
                for reason, count in drops.counts.most_common()
            ],
            "settings": self.corpus.config.model_dump(mode="json"),
        }

    def _places(self) -> Iterator[tuple[int, int]]:
        for file in range(len(self.corpus.files)):
            damage = self.corpus.damage(file)
            if damage is not None:
                self.drops.add(damage, self.corpus.name(file))
            for index in range(self.corpus.size(file)):
                yield file, index

    def _count_undecodable(self, document: Document) -> None:
        for pair in document.pairs:
            try:
                load_image(pair.image)
            except ImageError:
                self.drops.add(Dropped("image undecodable", "pair"), document.id)
