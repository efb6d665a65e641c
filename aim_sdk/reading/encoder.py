"""Reads demonstrations and projects the readings: many of them in batches of similar length, decoding ahead."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aim_sdk.backend.capabilities import HasVocabulary, capability
from aim_sdk.backend.interfaces import Backend
from aim_sdk.backend.prepared import PreparedReadings
from aim_sdk.config import Binding, PromptFormat
from aim_sdk.errors import ContextLengthError, InputError, NonFiniteError
from aim_sdk.projectors.base import Projector
from aim_sdk.support.cores import leave_cores
from aim_sdk.support.finite import are_finite, not_finite
from aim_sdk.types import Demonstration, FusedTokens, KeptReading, Query, Reading

BATCH_TOKENS = 4096
"""Positions of one forward, padding included."""
_AHEAD = 2
"""Batches that are decoded while one is computed."""

OnError = Callable[[int, InputError], None]
"""Called with each demonstration that cannot be read (its index among those given)."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """What the backbone and the projector made of one demonstration."""

    reading: KeptReading
    fused: FusedTokens


@dataclass(frozen=True, slots=True)
class PreparedBatch:
    """Demonstrations that wait for one forward, with their indices among those that were given."""

    places: tuple[int, ...]
    readings: PreparedReadings


class Encoder:
    """One backbone, one projector, one prompt format."""

    def __init__(self, backend: Backend, projector: Projector, prompt_format: PromptFormat) -> None:
        self.backend, self.projector, self.prompt_format = backend, projector, prompt_format

    @cached_property
    def binding(self) -> Binding:
        """What fused tokens depend on besides their demonstration."""
        return Binding(
            fingerprint=self.backend.fingerprint,
            projector_kind=self.projector.kind,
            projector_hash=self.projector.identity,
            prompt_format=self.prompt_format,
            layers=self.projector.layers,
        )

    @torch.no_grad()
    def encode(self, demonstrations: Sequence[Demonstration], *, with_images: bool = True) -> list[FusedTokens]:
        """Read and project one batch; ``with_images=False`` is the no-image control.

        Raises:
            NonFiniteError: a reading or fused tokens hold NaN or infinity.
        """
        return self._fused(self.read(demonstrations, with_images=with_images))

    def stream(
        self,
        demonstrations: Sequence[Demonstration],
        *,
        batch_tokens: int = BATCH_TOKENS,
        on_error: OnError | None = None,
    ) -> Iterator[list[tuple[int, Encoded]]]:
        """Read any number of demonstrations; yield each batch as soon as it is computed, with their places.

        Raises:
            InputError: a demonstration cannot be read, or makes NaN or infinity (`NonFiniteError`), and there
                is no ``on_error``.
        """
        lengths = self.lengths_by_place(demonstrations, on_error)
        batches = iter(batches_of(lengths, batch_tokens))
        with ThreadPoolExecutor(_AHEAD, thread_name_prefix="aim-decode", initializer=leave_cores) as pool:
            waiting: deque[Future[list[PreparedBatch]]] = deque()
            try:
                while True:
                    while len(waiting) <= _AHEAD and (batch := next(batches, None)):
                        waiting.append(pool.submit(self.prepare, demonstrations, batch, on_error))
                    if not waiting:
                        return
                    if read := self.run(waiting.popleft().result(), on_error):
                        yield self._encoded(read, on_error)
            finally:
                for future in waiting:
                    future.cancel()

    def pooled(self, reading: KeptReading) -> NDArray[np.float32]:
        """One vector, as wide as a state: the mean over the tokens that have seen the image and not the answer."""
        end = max(1, reading.answer_start)
        seen = reading.hidden[min(reading.image_position, end - 1) : end]
        vector: NDArray[np.float32] = seen.float().mean(0).cpu().numpy()
        return vector

    def pooled_queries(self, queries: Sequence[Query]) -> NDArray[np.float32]:
        """The same vectors of queries, ``(queries, hidden)``: causal states before the answer do not depend on it.

        They are read in batches of similar length.

        Raises:
            InputError: a query cannot be read, or makes NaN or infinity; its ``query`` is the query's index.
        """
        # A letter: a blank before it becomes part of its token, as it does before most answers.
        shown = [Demonstration(query.image, query.text, "a") for query in queries]
        vectors: dict[int, NDArray[np.float32]] = {}
        for places in batches_of(self.lengths_by_place(shown, _refuse), BATCH_TOKENS):
            read = self.run(self.prepare(shown, places, _refuse), _refuse)
            finite = are_finite([(reading.hidden,) for _, reading in read])
            for (place, reading), usable in zip(read, finite, strict=True):
                if not usable:
                    _refuse(place, not_finite("the reading of a query", reading.hidden.dtype))
                vectors[place] = self.pooled(reading.kept())
        return np.stack([vectors[place] for place in range(len(shown))])

    @torch.no_grad()
    def project(self, readings: Sequence[KeptReading]) -> list[FusedTokens]:
        """Project kept readings.

        Raises:
            NonFiniteError: they, or their fused tokens, hold NaN or infinity.
        """
        return self._fused([self.whole(reading) for reading in readings])

    def whole(self, kept: KeptReading) -> Reading:
        """A kept reading as it was read: on the backbone's device, its embeddings looked up again.

        Raises:
            CapabilityError: the backend does not show its vocabulary.
        """
        table = self._table
        hidden, embeddings = kept.hidden.to(table.device, table.dtype), table[kept.token_ids.to(table.device)]
        return Reading(kept.token_ids, hidden, embeddings, kept.image_position, kept.answer_start)

    @cached_property
    def scope(self) -> str:
        """A hash of what readings depend on besides their demonstration: backbone, dtype, format, layers."""
        identity = self.backend.fingerprint.model_dump(exclude={"libraries", "model", "revision", "backend"})
        parts = [identity, str(self.backend.dtype), self.prompt_format.model_dump(), list(self.projector.layers)]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def on_device(self, fused: Tensor) -> Tensor:
        """Move kept fused tokens to the backbone."""
        return fused.to(self.backend.device, self.backend.dtype)

    @cached_property
    def _table(self) -> Tensor:
        """The input embeddings; some backends compute them at every call."""
        return capability(self.backend, HasVocabulary).vocabulary.inputs

    def lengths_by_place(
        self, demonstrations: Sequence[Demonstration], on_error: OnError | None = None
    ) -> dict[int, int]:
        """Estimated positions of each demonstration by its place; those that cannot be read are left out."""
        estimate = self.backend.reader.lengths
        try:
            found = estimate(demonstrations, prompt_format=self.prompt_format)
            return dict(enumerate(found))
        except InputError:
            if on_error is None:
                raise
        lengths = {}
        for place, item in enumerate(demonstrations):
            try:
                (lengths[place],) = estimate([item], prompt_format=self.prompt_format)
            except InputError as error:
                on_error(place, error)
        return lengths

    def read(self, demonstrations: Sequence[Demonstration], *, with_images: bool = True) -> list[Reading]:
        """Read one batch, the layers that the projector wants."""
        return self.backend.reader.read(
            demonstrations, prompt_format=self.prompt_format, with_images=with_images, layers=self.projector.layers
        )

    def prepare(
        self, demonstrations: Sequence[Demonstration], places: Sequence[int], on_error: OnError | None = None
    ) -> list[PreparedBatch]:
        """Decode the demonstrations at ``places`` for one forward; one that cannot be used is reported and left out.

        If one is refused, each of the others gets a forward of its own.
        """
        try:
            shown = [demonstrations[place] for place in places]
            return [PreparedBatch(tuple(places), self._prepared(shown))]
        except InputError as error:
            if _reported(places, error, on_error):
                return []
            return [part for place in places for part in self.prepare(demonstrations, [place], on_error)]

    def run(self, batches: Sequence[PreparedBatch], on_error: OnError | None = None) -> list[tuple[int, Reading]]:
        """Read what was prepared; return the readings with their places, without those that cannot be read."""
        return [item for batch in batches for item in self._run(batch, on_error)]

    def _run(self, batch: PreparedBatch, on_error: OnError | None) -> list[tuple[int, Reading]]:
        try:
            return list(zip(batch.places, self.backend.reader.run(batch.readings), strict=True))
        except InputError as error:
            if _reported(batch.places, error, on_error):
                return []
            shown = dict(zip(batch.places, batch.readings.demonstrations, strict=True))
            parts = (PreparedBatch((place,), self._prepared([item])) for place, item in shown.items())
            return [item for part in parts for item in self._run(part, on_error)]

    def _prepared(self, demonstrations: Sequence[Demonstration]) -> PreparedReadings:
        return self.backend.reader.prepare(
            demonstrations, prompt_format=self.prompt_format, layers=self.projector.layers
        )

    @torch.no_grad()
    def _encoded(
        self, read: Sequence[tuple[int, Reading]], on_error: OnError | None = None
    ) -> list[tuple[int, Encoded]]:
        """Project readings; those that hold NaN or infinity, or whose fused tokens do, are left out and reported."""
        fused = self.projector.project([reading for _, reading in read])
        made = [(place, Encoded(reading.kept(), tokens)) for (place, reading), tokens in zip(read, fused, strict=True)]
        usable = are_finite([(one.reading.hidden, one.fused.embeddings) for _, one in made])
        for (place, one), finite in zip(made, usable, strict=True):
            if not finite:
                error = self._not_finite(one)
                if on_error is None:
                    raise error
                on_error(place, error)
        return [item for item, finite in zip(made, usable, strict=True) if finite]

    def _fused(self, readings: Sequence[Reading]) -> list[FusedTokens]:
        return [one.fused for _, one in self._encoded(list(enumerate(readings)))]

    def _not_finite(self, one: Encoded) -> NonFiniteError:
        (reading,) = are_finite([(one.reading.hidden,)])
        if reading:
            return not_finite("fused tokens, though the reading has none: the projector", one.fused.embeddings.dtype)
        return not_finite("the reading of a demonstration", one.reading.hidden.dtype)


def _refuse(place: int, error: InputError) -> None:
    """Say which query of several cannot be read."""
    error.query = place
    if isinstance(error, ContextLengthError):  # the message is a demonstration's, with an answer
        error.args = (f"the query, read to find demonstrations like it: {error}",)
    raise error


def _reported(places: Sequence[int], error: InputError, on_error: OnError | None) -> bool:
    """Report the demonstration that an error is about, if there is one; without an ``on_error``, raise the error."""
    if on_error is None:
        raise error
    if len(places) == 1:
        on_error(places[0], error)
    return len(places) == 1


def batches_of(lengths: dict[int, int], budget: int) -> Iterator[list[int]]:
    """Group indices into batches of similar length, padded size within the budget (a single item may exceed it)."""
    batch: list[int] = []
    for place in sorted(lengths, key=lambda place: -lengths[place]):  # the largest first: it fails at once
        if batch and (len(batch) + 1) * lengths[batch[0]] > budget:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch
