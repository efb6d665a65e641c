"""What a bank needs from a store of entries, and the store in memory."""

from __future__ import annotations

import hashlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from aim_sdk.errors import InputError, did_you_mean
from aim_sdk.files.images import image_digest
from aim_sdk.types import Demonstration, FusedTokens, KeptReading, Matrix, Metadata, Query

Where: TypeAlias = "Mapping[str, Any]"
"""Metadata that an entry must have, by field: a value, or a list of allowed values."""


@dataclass(frozen=True, slots=True)
class NewEntry:
    """What is kept for one demonstration."""

    key: str
    position: int
    """Entries are ordered by it."""
    digest: str
    """Of the image's content."""
    demonstration: Demonstration
    fused: FusedTokens
    reading: KeptReading | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """What filters and selectors look at."""

    key: str
    origin: str
    metadata: Metadata


def origin_of(digest: str, text: str) -> str:
    """Names the image and the text of a demonstration or a query, without an answer."""
    return hashlib.sha256(f"{digest} {text}".encode()).hexdigest()


def query_origin(query: Query) -> str:
    """What a query shares with the demonstration that shows its own image and text."""
    return origin_of(image_digest(query.image), query.text)


def checked_where(where: object) -> Where:
    """A filter, as it was given.

    Raises:
        InputError: it is not a mapping of fields to values.
    """
    if where is None:
        return {}
    if not isinstance(where, Mapping):
        raise InputError(f"where: {type(where).__name__}; expected fields and values, as in {{'label': 'cat'}}.")
    for name, value in where.items():
        values = value if isinstance(value, list | tuple | set | frozenset) else [value]
        if not isinstance(name, str) or not values or not all(isinstance(one, str | int | float) for one in values):
            raise InputError(
                f"where={{{name!r}: {value!r}}}; expected a field's name and its value, or a list of values."
            )
    return where


def check_fields(where: Where, listed: Sequence[Listed]) -> None:
    """Refuse fields that no entry has.

    Raises:
        InputError: naming the nearest one that there is.
    """
    known = {name for entry in listed for name in entry.metadata}
    for name in where.keys() - known if listed else ():
        has = f"Fields: {', '.join(sorted(known))}." if known else "None has metadata."
        raise InputError(f"where: no demonstration has a field {name!r}.{did_you_mean(name, known)} {has}")


def matches(metadata: Metadata, where: Where) -> bool:
    """Whether every field of ``where`` has (one of) its value(s)."""
    return all(
        metadata.get(name) in (value if isinstance(value, list | tuple | set | frozenset) else (value,))
        for name, value in where.items()
    )


class Store(ABC):
    """Keeps entries in the order of their positions, and vectors (features) of them by name."""

    path: Path | None = None
    keep_readings: bool = True
    """Whether readings are kept with the fused tokens."""

    @abstractmethod
    def add(
        self, entries: Sequence[NewEntry], *, remove: Sequence[str] = (), features: Mapping[str, Matrix] | None = None
    ) -> None:
        """Keep entries whose keys are not here yet and forget others, all or nothing; when this returns, they are safe.

        ``features`` are vectors of the entries, ``(entries, dim)`` by name.
        """

    @abstractmethod
    def tag(self, metadata: Mapping[str, Metadata]) -> None:
        """Replace the metadata of entries, by key."""

    @abstractmethod
    def held(self, keys: Iterable[str]) -> dict[str, Metadata]:
        """The metadata of those keys that are here."""

    @abstractmethod
    def ordered_keys(self, limit: int | None = None) -> list[str]:
        """The first ``limit`` keys (None: all), in order."""

    @abstractmethod
    def listed(self) -> Sequence[Listed]:
        """All entries, in order; the same object until something changes."""

    @abstractmethod
    def positions(self, keys: Iterable[str]) -> dict[str, int]:
        """The positions of those entries that are here."""

    @abstractmethod
    def used_positions(self, start: int, stop: int) -> set[int]:
        """Which positions from ``start`` to ``stop`` an entry has, or had before it was removed."""

    @abstractmethod
    def next_position(self) -> int:
        """The position after the last entry."""

    @abstractmethod
    def demonstration(self, key: str) -> Demonstration:
        """What was added.

        Raises:
            KeyError: it is not here.
        """

    @abstractmethod
    def digest(self, key: str) -> str:
        """Of the content of an entry's image."""

    @abstractmethod
    def fused(self, key: str) -> FusedTokens:
        """An entry's fused tokens, on any device and without their key."""

    @abstractmethod
    def reading(self, key: str) -> KeptReading | None:
        """An entry's reading, if readings are kept."""

    @abstractmethod
    def add_features(self, name: str, keys: Sequence[str], vectors: Matrix) -> None:
        """Keep a vector ``(dim,)`` per key."""

    @abstractmethod
    def features(self, name: str) -> dict[str, NDArray[np.float32]]:
        """The vectors of one name, by key; those of removed entries may be among them."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def close(self) -> None:
        """Close the files. Optional: nothing is lost without it."""


class MemoryStore(Store):
    """Keeps everything as it was given, for as long as the process lives."""

    def __init__(self) -> None:
        self._entries: dict[str, NewEntry] = {}
        self._features: dict[str, dict[str, NDArray[np.float32]]] = {}
        self._removed: set[int] = set()
        self._listed: list[Listed] | None = None
        self._lock = threading.RLock()

    def add(
        self, entries: Sequence[NewEntry], *, remove: Sequence[str] = (), features: Mapping[str, Matrix] | None = None
    ) -> None:
        with self._lock:
            for name, vectors in (features or {}).items():
                self.add_features(name, [entry.key for entry in entries], vectors)
            for key in remove:
                if gone := self._entries.pop(key, None):
                    self._removed.add(gone.position)
            for entry in entries:
                self._entries.setdefault(entry.key, entry)
            # Positions are mostly in order already, and sorting what is sorted is quick.
            self._entries = dict(sorted(self._entries.items(), key=lambda item: item[1].position))
            self._listed = None

    def tag(self, metadata: Mapping[str, Metadata]) -> None:
        with self._lock:
            for key, fields in metadata.items():
                old = self._entries[key]
                self._entries[key] = replace(old, demonstration=replace(old.demonstration, metadata=dict(fields)))
            self._listed = None

    def held(self, keys: Iterable[str]) -> dict[str, Metadata]:
        return {key: self._entries[key].demonstration.metadata for key in keys if key in self._entries}

    def ordered_keys(self, limit: int | None = None) -> list[str]:
        with self._lock:
            return list(self._entries)[:limit]

    def listed(self) -> Sequence[Listed]:
        with self._lock:
            if self._listed is None:
                self._listed = [
                    Listed(key, origin_of(entry.digest, entry.demonstration.text), entry.demonstration.metadata)
                    for key, entry in self._entries.items()
                ]
            return self._listed

    def positions(self, keys: Iterable[str]) -> dict[str, int]:
        return {key: self._entries[key].position for key in keys if key in self._entries}

    def used_positions(self, start: int, stop: int) -> set[int]:
        with self._lock:
            used = self._removed.union(entry.position for entry in self._entries.values())
        return {position for position in used if start <= position < stop}

    def next_position(self) -> int:
        with self._lock:
            return next((entry.position + 1 for entry in reversed(self._entries.values())), 0)

    def demonstration(self, key: str) -> Demonstration:
        return self._entries[key].demonstration

    def digest(self, key: str) -> str:
        return self._entries[key].digest

    def fused(self, key: str) -> FusedTokens:
        return self._entries[key].fused

    def reading(self, key: str) -> KeptReading | None:
        return self._entries[key].reading

    def add_features(self, name: str, keys: Sequence[str], vectors: Matrix) -> None:
        with self._lock:
            self._features.setdefault(name, {}).update(zip(keys, vectors, strict=True))

    def features(self, name: str) -> dict[str, NDArray[np.float32]]:
        with self._lock:
            return dict(self._features.get(name, {}))

    def __len__(self) -> int:
        return len(self._entries)

    def close(self) -> None:
        pass
