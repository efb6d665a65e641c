"""What selectors look at: a bank as it was at one moment, with its vectors in order."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from aim_sdk.bank.photos import Photos
from aim_sdk.bank.store import Listed, Store, query_origin
from aim_sdk.errors import CorruptArtifactError, InputError, UnknownEntryError
from aim_sdk.reading.encoder import Encoder
from aim_sdk.support.vectors import blocks
from aim_sdk.types import Demonstration, Matrix, Query

CHUNK = 1024
"""Vectors that are computed before they are kept."""

Compute = Callable[[list[Demonstration]], Matrix]
T = TypeVar("T")


class BankView:
    """A bank at one moment. It does not change; after a change, `DemonstrationBank.view` returns another one.

    What is computed from it (matrices, means, candidates) is kept and freed with it.

    Args:
        entries: what the bank held, in order.
        store: where vectors are kept.
        photos: finds the images.
        encoder: reads queries; None for a bank without a backbone.
    """

    def __init__(self, entries: Sequence[Listed], store: Store, photos: Photos, encoder: Encoder | None = None) -> None:
        self.entries = tuple(entries)
        self.keys: frozenset[str] | None = None
        """Only demonstrations of these keys are candidates; None: all."""
        self._store, self._photos, self._encoder = store, photos, encoder
        self._kept: dict[Hashable, Any] = {}

    def __len__(self) -> int:
        return len(self.entries)

    def __repr__(self) -> str:
        return f"<BankView: {len(self)} demonstrations>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise InputError("a view of a bank cannot be copied or pickled; open the bank in each process, by its path.")

    def among(self, keys: frozenset[str]) -> BankView:
        """The same view, with only the demonstrations of these keys as candidates."""
        narrowed = BankView(self.entries, self._store, self._photos, self._encoder)
        narrowed.keys, narrowed._kept = keys, self._kept
        return narrowed

    def kept(self, name: Hashable, make: Callable[[], T]) -> T:
        """The result of ``make``, which is called once per name and view."""
        if name not in self._kept:
            self._kept[name] = make()
        found: T = self._kept[name]
        return found

    def features(self, name: str, compute: Compute | None = None, *, of_images: bool = True) -> NDArray[np.float32]:
        """One vector per entry, ``(entries, dim)``, in the order of `entries`.

        Args:
            name: which vectors; names the model that makes them.
            compute: makes the vectors ``(n, dim)`` of entries that have none yet; they are kept in the bank.
            of_images: ``compute`` looks at images, which must then be those that were read.

        Returns:
            float32; not to be changed: all that look at the bank share it.

        Raises:
            InputError: an entry has none, and there is no ``compute``; or what it returns is not ``(n, dim)`` of
                finite numbers.
            ImageError: an image was moved or overwritten.
        """
        if not isinstance(name, str) or not name.strip():
            raise InputError(f"features: {name!r}; expected a name, which tells these vectors from others.")
        return self.kept(("features", name), lambda: self._matrix(name, compute, of_images=of_images))

    def centred(self, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The mean ``(dim,)`` of the vectors of one name, and each one's distance from it, ``(entries,)``.

        A vector that is the mean has no direction from it: its distance is infinity.
        """
        return self.kept(("centred", name), lambda: _centred(self.features(name)))

    def own(self, query: Query) -> list[int]:
        """Places in `entries` of the query's own demonstrations: with its id, or with its image and text.

        Images are compared as they were given: files by their bytes, PIL images by their pixels.
        """
        if not isinstance(query, Query):
            raise InputError(f"own: {type(query).__name__}; expected a Query.")
        places = self.kept("places", lambda: _places(self.entries))
        found = places.get(("origin", query_origin(query)), [])
        return found if query.id is None else [*found, *places.get(("id", query.id), [])]

    def pooled_queries(self, queries: Sequence[Query]) -> NDArray[np.float32]:
        """The pooled readings ``(queries, hidden)`` of queries, to compare with ``features("reading")``.

        Raises:
            InputError: the bank was opened without a backbone.
        """
        if self._encoder is None:
            raise without_backbone("queries")
        return self._encoder.pooled_queries(queries)

    def demonstration(self, key: str) -> Demonstration:
        """The demonstration with that key.

        Raises:
            UnknownEntryError: it is not in the bank (any more).
        """
        try:
            return self._store.demonstration(key)
        except KeyError:
            raise UnknownEntryError(f"the bank holds no demonstration {key!r} (any more).") from None

    def _matrix(self, name: str, compute: Compute | None, *, of_images: bool) -> NDArray[np.float32]:
        """Stack the vectors; those that are missing are computed and kept, of the images that were read."""
        found = self._photos.checked if of_images else self._store.demonstration
        vectors = self._store.features(name)
        missing = [entry.key for entry in self.entries if entry.key not in vectors]
        if missing and compute is None:
            raise InputError(f"{len(missing)} of {len(self)} demonstrations have no vectors {name!r}.")
        for start in range(0, len(missing), CHUNK):
            keys = missing[start : start + CHUNK]
            assert compute  # refused above
            made = _checked(compute([found(key) for key in keys]), name, len(keys))
            self._store.add_features(name, keys, made)
            vectors.update(zip(keys, made, strict=True))
        if len(widths := {vectors[entry.key].shape for entry in self.entries}) > 1:
            raise CorruptArtifactError(f"the bank holds vectors {name!r} of several widths: {sorted(widths)}.")
        if not self.entries:
            return np.zeros((0, 1), np.float32)
        matrix = np.stack([vectors[entry.key] for entry in self.entries])
        matrix.setflags(write=False)
        return matrix


def _checked(made: object, name: str, count: int) -> NDArray[np.float32]:
    """The vectors that a function made, as they are kept."""
    vectors = np.asarray(made)
    if vectors.dtype.kind not in "fiub" or vectors.ndim != 2 or len(vectors) != count or not vectors.shape[1]:
        raise InputError(
            f"features {name!r}: the function returned {vectors.dtype} of shape {vectors.shape} for {count} "
            f"demonstrations; expected numbers of shape ({count}, dim)."
        )
    if not np.isfinite(vectors).all():
        raise InputError(f"features {name!r}: the function returned NaN or infinity; nothing of it was kept.")
    return vectors.astype(np.float32)


def without_backbone(what: str) -> InputError:
    """The error of a bank without a backbone that is asked to read something."""
    return InputError(
        f"this bank was opened without a backbone, so it cannot read {what}.\n"
        "Next: AIMPipeline.from_pretrained(..., bank=path), or `aim-icl bank add`."
    )


def _places(entries: Sequence[Listed]) -> dict[tuple[str, str], list[int]]:
    """Places of the demonstrations by what makes one a query's own."""
    places: dict[tuple[str, str], list[int]] = {}
    for place, entry in enumerate(entries):
        places.setdefault(("origin", entry.origin), []).append(place)
        if "id" in entry.metadata:
            places.setdefault(("id", str(entry.metadata["id"])), []).append(place)
    return places


def _centred(vectors: Matrix) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    mean = vectors.mean(0, dtype=np.float64)
    everything = np.arange(len(vectors))
    norms = np.concatenate([np.linalg.norm(rows - mean, axis=1) for _, rows in blocks(vectors, everything)])
    norms[norms <= 1e-9 * np.linalg.norm(mean)] = np.inf
    return mean, norms
