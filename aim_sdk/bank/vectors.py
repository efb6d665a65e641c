"""What selectors look at, in the order of the bank: vectors, and which demonstration is a query's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from aim_sdk.bank.photos import Photos
from aim_sdk.bank.store import Listed, Store, query_origin
from aim_sdk.errors import CorruptArtifactError, InputError
from aim_sdk.types import Demonstration, Matrix, Query

CHUNK = 1024
"""Vectors that are computed before they are kept."""

Compute = Callable[[list[Demonstration]], Matrix]


class Vectors:
    """Keeps what it has put in order, until the bank changes."""

    def __init__(self, store: Store, photos: Photos) -> None:
        self._store, self._photos = store, photos
        self._matrices: dict[str, tuple[Sequence[Listed], Matrix]] = {}
        self._places: tuple[Sequence[Listed], dict[tuple[str, str], list[int]]] = ((), {})

    def matrix(self, name: str, compute: Compute | None, *, of_images: bool = True) -> NDArray[np.float32]:
        """One vector per entry; those that are missing are computed and kept, of the images that were read."""
        found = self._photos.checked if of_images else self._store.demonstration
        listed = self._store.listed()
        known = self._matrices.get(name)
        if known and known[0] is listed:
            return known[1]
        vectors = self._store.features(name)
        missing = [entry.key for entry in listed if entry.key not in vectors]
        if missing and compute is None:
            raise InputError(f"{len(missing)} of {len(listed)} demonstrations have no vectors {name!r}.")
        for start in range(0, len(missing), CHUNK):
            keys = missing[start : start + CHUNK]
            assert compute  # refused above
            made = compute([found(key) for key in keys]).astype(np.float32)
            self._store.add_features(name, keys, made)
            vectors.update(zip(keys, made, strict=True))
        if len(widths := {vectors[entry.key].shape for entry in listed}) > 1:
            raise CorruptArtifactError(f"the bank holds vectors {name!r} of several widths: {sorted(widths)}.")
        matrix = np.stack([vectors[entry.key] for entry in listed]) if listed else np.zeros((0, 1), np.float32)
        self._matrices[name] = listed, matrix
        return matrix

    def own(self, query: Query) -> list[int]:
        """Places of the demonstrations with the query's id, or with its image and text."""
        listed = self._store.listed()
        if self._places[0] is not listed:
            places: dict[tuple[str, str], list[int]] = {}
            for place, entry in enumerate(listed):
                places.setdefault(("origin", entry.origin), []).append(place)
                if "id" in entry.metadata:
                    places.setdefault(("id", str(entry.metadata["id"])), []).append(place)
            self._places = listed, places
        found = self._places[1].get(("origin", query_origin(query)), [])
        return found if query.id is None else [*found, *self._places[1].get(("id", query.id), [])]
