"""Documents in an order that seed and epoch decide, from any position in it.

A corpus is dealt to a fixed number of streams, whoever reads them: so what a run sees does not depend on how many
processes and workers it has. A stream's position is two integers, and resuming from it reads no document before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from aim_sdk.errors import InputError
from aim_sdk.training.corpora.corpus import Corpus, open_corpus
from aim_sdk.training.corpora.drops import Drops

if TYPE_CHECKING:
    from aim_sdk.training.corpora.documents import Document

__all__ = ["Corpus", "Cursor", "DocumentStream", "open_corpus"]

_GOLDEN = 0.6180339887498949


class Cursor(NamedTuple):
    """A place in a stream."""

    epoch: int
    position: int
    """Documents of this stream that the epoch has passed, including dropped ones."""


class DocumentStream:
    """One stream of a corpus's documents.

    Document ``i`` of file ``j`` belongs to stream ``(i + start(j)) % streams`` at every epoch; the starts are spread
    over the streams, so that files of few documents do not all fall to the first ones. Files are permuted by seed and
    epoch, the documents of a file by seed, epoch and file. To resume from a cursor, the files that the epoch has
    passed are counted (their documents are not read), if this corpus object has not opened them before.

    Args:
        corpus: where the documents are.
        stream: which of the streams.
        streams: how many there are.
        seed: another one gives other orders; not negative.
        cursor: where to begin; also as a list, as JSON has it.
        epochs: where to end: after epoch ``epochs - 1``. None: never, but a stream that finds no usable document in a
            whole epoch ends.

    Raises:
        InputError: no such stream, or a number is negative.
    """

    def __init__(
        self,
        corpus: Corpus,
        *,
        stream: int = 0,
        streams: int = 1,
        seed: int = 0,
        cursor: Cursor = Cursor(0, 0),  # noqa: B008  # a NamedTuple does not change
        epochs: int | None = None,
    ) -> None:
        self.cursor = Cursor(*cursor)
        if not 0 <= stream < streams:
            raise InputError(f"stream={stream} of streams={streams}; expected 0 to {streams - 1}.")
        if min(seed, *self.cursor) < 0:
            raise InputError(f"seed={seed}, cursor={tuple(self.cursor)}; expected numbers of at least 0.")
        self.corpus, self.stream, self.streams, self.seed, self.epochs = corpus, stream, streams, seed, epochs
        self.drops = Drops()

    @property
    def dropped(self) -> Counter[str]:
        """How often something was left out, by reason; see [`Drops`][aim_sdk.training.corpora.drops.Drops]."""
        return self.drops.counts

    def __iter__(self) -> Iterator[tuple[Document, Cursor]]:
        """Each usable document, with the position after it: a stream that begins there continues in the same way."""
        epoch, position = self.cursor
        while self.epochs is None or epoch < self.epochs:
            usable = position > 0
            for file, index in self._places(epoch, position):
                position += 1
                document = self.corpus.document(file, index, self.drops)
                if document is not None:
                    usable = True
                    yield document, Cursor(epoch, position)
            if not usable and self.epochs is None:
                return
            epoch, position = epoch + 1, 0

    def _places(self, epoch: int, past: int) -> Iterator[tuple[int, int]]:
        """File and number of this stream's documents, the first ``past`` left out."""
        for file in self._files(epoch):
            count = len(range(self._first(file), self.corpus.size(file), self.streams))
            if past and past >= count:
                past -= count
                continue
            if not past:
                self._count_damage(file)
            for index in self._order(epoch, file)[past:]:
                yield file, int(index)
            past = 0

    def _files(self, epoch: int) -> Iterator[int]:
        files = np.arange(len(self.corpus.files))
        yield from map(int, self._rng(epoch, 0).permutation(files) if self.corpus.config.shuffle else files)

    def _order(self, epoch: int, file: int) -> list[int]:
        first = self._first(file)
        if not self.corpus.config.shuffle:
            return list(range(first, self.corpus.size(file), self.streams))
        order = self.corpus.order(file, self._rng(epoch, file + 1))
        ours: list[int] = order[order % self.streams == first].tolist()
        return ours

    def _rng(self, epoch: int, file: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, epoch, file))

    def _first(self, file: int) -> int:
        """The first document of a file that belongs to this stream, and every ``streams``-th after it."""
        start = int(file * _GOLDEN % 1 * self.streams)
        return (self.stream - start) % self.streams

    def _count_damage(self, file: int) -> None:
        """Exactly one of the streams counts what is lost of a file."""
        damage = self.corpus.damage(file)
        if damage is not None and self._first(file) == 0:
            self.drops.add(damage, self.corpus.name(file))
