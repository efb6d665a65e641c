"""The Demonstration Bank as its users hold it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from aim_sdk.bank.store import Listed, Matrix, MemoryStore, NewEntry, Store, Where, matches, origin_of
from aim_sdk.config import Binding
from aim_sdk.encoder import BATCH_TOKENS, Encoded, Encoder
from aim_sdk.errors import InputError, ShotsError, UnknownEntryError, did_you_mean
from aim_sdk.images import image_digest
from aim_sdk.types import Demonstration, FusedTokens, Metadata, Query

if TYPE_CHECKING:
    from numpy.typing import NDArray

POOLED = "reading"
"""The name of the pooled readings among the features."""
WINDOW = 1024
"""Demonstrations that are sorted by length together, and vectors that are computed before they are kept."""

OnError = Callable[[Demonstration, InputError], None]
"""Hears of a demonstration that cannot be read."""


@dataclass(frozen=True)
class BankEntry:
    """A demonstration, its content key, and the fused tokens that stand for it (loaded when they are first used)."""

    key: str
    demonstration: Demonstration
    _load: Callable[[], FusedTokens] = field(repr=False, compare=False)

    @cached_property
    def fused(self) -> FusedTokens:
        """The fused tokens, on the backbone's device where there is one."""
        return self._load()


class DemonstrationBank:
    """Keeps demonstrations with their fused tokens, in the order they were added; adding one again reads nothing.

    ``AIMPipeline.bank`` is one. Without a path it lives in memory; :meth:`open` opens one on disk, where every
    demonstration whose :meth:`add` has returned survives a crash and a power loss.

    Args:
        store: where entries are kept.
        binding: what their fused tokens depend on: backbone, projector, prompt format; part of every key.
        encoder: reads and projects; None for a bank that is only looked at.
    """

    def __init__(self, store: Store, binding: Binding, encoder: Encoder | None = None) -> None:
        self._store, self.binding, self._encoder = store, binding, encoder
        self._aligned: dict[str, tuple[Sequence[Listed], Matrix]] = {}
        self._origins: tuple[Sequence[Listed], dict[tuple[str, object], list[int]]] = ((), {})

    @classmethod
    def in_memory(cls, encoder: Encoder) -> DemonstrationBank:
        """A bank that lives as long as the process."""
        return cls(MemoryStore(), encoder.binding, encoder)

    def key(self, demonstration: Demonstration) -> str:
        """The content key: a SHA-256 over image content, text, answer and the bank's binding."""
        return self._key(image_digest(demonstration.image), demonstration)

    def add(
        self,
        demonstrations: Iterable[Demonstration],
        *,
        batch_tokens: int = BATCH_TOKENS,
        progress: bool = False,
        on_error: OnError | None = None,
    ) -> list[str]:
        """Read the demonstrations that are not here yet and return the key of each one given.

        They are read in batches of like lengths, the next images decoded meanwhile. Every batch is kept as soon as it is
        read: an interruption loses at most the batches in flight, and the same call again goes on. Metadata that is
        given replaces what is here.

        Args:
            demonstrations: any number; an iterator is read as it is needed.
            batch_tokens: positions of one forward, visual tokens and padding included.
            progress: show a progress bar on stderr.
            on_error: called with each demonstration that cannot be read, which is then left out; None raises.

        Raises:
            InputError: something else than demonstrations was given.
            ImageError: an image cannot be decoded; the batches before it are kept.
            ArtifactWriteError: the disk is full, say; the batches before are kept.
        """
        if not isinstance(batch_tokens, int) or batch_tokens < 1:
            raise InputError(f"batch_tokens={batch_tokens!r}; expected a whole number of at least 1.")
        total = len(demonstrations) if isinstance(demonstrations, Sequence) else None
        source, keys = iter(demonstrations), list[str]()
        with _bar() if progress else nullcontext() as bar:
            task = bar.add_task("reading demonstrations", total=total) if bar else None
            while window := list(islice(source, WINDOW)):
                for done in self._add(window, keys, batch_tokens, on_error):
                    if bar and task is not None:
                        bar.advance(task, done)
        return keys

    def remove(self, *keys: str) -> None:
        """Forget entries, all or none.

        Raises:
            UnknownEntryError: no entry has that key.
        """
        self._check(keys)
        self._store.add([], remove=keys)

    def replace(self, key: str, demonstration: Demonstration) -> str:
        """Put another demonstration where one stands, in one step; return its key.

        Raises:
            UnknownEntryError: no entry has that key.
            InputError: the new one is here already.
        """
        self._check([key])
        digest = image_digest(demonstration.image)
        new = self._key(digest, demonstration)
        if new == key:
            self._store.tag({key: demonstration.metadata})
            return key
        if self._store.held([new]):
            raise InputError(f"the demonstration is in the bank already, as {new}; remove {key} instead.")
        ((_, encoded),) = next(self._reader().stream([demonstration]))
        self._keep([(new, self._store.position(key), digest, demonstration, encoded)], remove=[key])
        return new

    def tag(self, key: str, **metadata: str | int | float | bool | None) -> None:
        """Set fields of an entry's metadata; None drops a field.

        Raises:
            UnknownEntryError: no entry has that key.
        """
        self._check([key])
        fields = {**self._store.held([key])[key], **metadata}
        self._store.tag({key: {name: value for name, value in fields.items() if value is not None}})

    def first(self, shots: int) -> list[BankEntry]:
        """The ``shots`` entries that were added first.

        Raises:
            ShotsError: the bank holds fewer.
        """
        self.check_shots(shots, len(self))
        return [self[key] for key in self._store.keys(shots)]

    def keys(self, where: Where | None = None) -> list[str]:
        """The keys of the entries with that metadata, in the order of their addition.

        Args:
            where: ``{field: value}``, or ``{field: [values]}`` for any of them.
        """
        if not where:
            return self._store.keys()
        return [entry.key for entry in self.listed(where)]

    def listed(self, where: Where | None = None) -> Sequence[Listed]:
        """Key, origin and metadata of the entries, in order: what selectors look at, without loading any."""
        return (
            [entry for entry in self._store.listed() if matches(entry.metadata, where)]
            if where
            else self._store.listed()
        )

    def own(self, query: Query) -> list[int]:
        """Places in :meth:`listed` of the query's own demonstrations: those with its id, else with its image and text."""
        listed = self._store.listed()
        if self._origins[0] is not listed:
            places: dict[tuple[str, object], list[int]] = {}
            for place, entry in enumerate(listed):
                places.setdefault(("origin", entry.origin), []).append(place)
                places.setdefault(("id", entry.metadata.get("id")), []).append(place)
            self._origins = listed, places
        return self._origins[1].get(("origin", origin(query)) if query.id is None else ("id", query.id), [])

    def get(self, key: str) -> BankEntry | None:
        """The entry with that key, if it is here."""
        return self[key] if self._store.held([key]) else None

    def __getitem__(self, key: str) -> BankEntry:
        try:
            return BankEntry(key, self._store.demonstration(key), lambda: self._fused(key))
        except KeyError:
            raise self._unknown(key) from None

    def find(self, prefix: str) -> str:
        """The key that begins with ``prefix``, as people copy keys from a list.

        Raises:
            UnknownEntryError: there is none, or more than one.
        """
        found = [key for key in self._store.keys() if key.startswith(prefix)]
        if len(found) != 1:
            raise (
                self._unknown(prefix)
                if not found
                else UnknownEntryError(
                    f"{len(found)} entries begin with {prefix!r}: {', '.join(key[:12] for key in found[:5])}; give more of it."
                )
            )
        return found[0]

    def features(
        self, name: str, compute: Callable[[list[Demonstration]], Matrix] | None = None
    ) -> NDArray[np.float32]:
        """One vector an entry, ``(entries, dim)``, in the order of :meth:`listed`.

        Args:
            name: which vectors; names the model that makes them.
            compute: makes the vectors ``(n, dim)`` of entries that have none yet; they are kept in the bank.

        Raises:
            InputError: an entry has none, and there is no ``compute``.
        """
        listed = self._store.listed()
        known = self._aligned.get(name)
        if known and known[0] is listed:
            return known[1]
        vectors = self._store.features(name)
        missing = [entry.key for entry in listed if entry.key not in vectors]
        if missing and compute is None:
            raise InputError(f"{len(missing)} of {len(listed)} demonstrations have no vectors {name!r}.")
        for start in range(0, len(missing) if compute else 0, WINDOW):
            keys = missing[start : start + WINDOW]
            assert compute
            made = compute([self._store.demonstration(key) for key in keys]).astype(np.float32)
            self._store.add_features(name, keys, made)
            vectors.update(zip(keys, made, strict=True))
        matrix = np.stack([vectors[entry.key] for entry in listed]) if listed else np.zeros((0, 1), np.float32)
        self._aligned[name] = listed, matrix
        return matrix

    def pooled_query(self, query: Query) -> NDArray[np.float32]:
        """A query's pooled reading ``(hidden,)``, to compare with ``features("reading")``."""
        return self._reader().pooled_query(query)

    def check_shots(self, shots: int, available: int) -> None:
        """Refuse more shots than there are demonstrations.

        Raises:
            ShotsError: naming both numbers.
        """
        if shots > available:
            raise ShotsError(
                f"{shots} shots asked for, but the bank holds {available} demonstrations to choose from. "
                "Add more with `pipe.bank.add([...])`, or pass a smaller `shots`."
            )

    def close(self) -> None:
        """Let go of the files; the bank is safe without it."""
        self._store.close()

    def __enter__(self) -> DemonstrationBank:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._store)

    def __iter__(self) -> Iterator[BankEntry]:
        """Entries in order; those that are removed meanwhile are left out."""
        for key in self._store.keys():
            if (entry := self.get(key)) is not None:
                yield entry

    def __contains__(self, demonstration: Demonstration) -> bool:
        return bool(self._store.held([self.key(demonstration)]))

    def _add(
        self, window: list[Demonstration], keys: list[str], batch_tokens: int, on_error: OnError | None
    ) -> Iterator[int]:
        """Add one window; yield how many demonstrations are done, and append the keys of all."""
        digests: dict[int, str] = {}
        for place, item in enumerate(window):
            if not isinstance(item, Demonstration):
                raise InputError(f"bank.add: expected Demonstration objects, got {type(item).__name__}.")
            try:
                digests[place] = image_digest(item.image)
            except InputError as error:
                if on_error is None:
                    raise
                on_error(item, error)
        named = {place: self._key(digest, window[place]) for place, digest in digests.items()}
        held = self._store.held(named.values())
        new = {key: place for place, key in reversed(named.items()) if key not in held}  # the first of equal ones
        self._retag({key: window[place].metadata for place, key in named.items()}, held)
        yield len(window) - len(new)
        failed: set[str] = set()
        if new:
            start = self._store.next_position()
            places = sorted(new.values())

            def report(index: int, error: InputError) -> None:
                failed.add(named[places[index]])
                assert on_error is not None
                on_error(window[places[index]], error)

            reader = self._reader().stream(
                [window[place] for place in places],
                batch_tokens=batch_tokens,
                on_error=None if on_error is None else report,
            )
            for batch in reader:
                self._keep(
                    [
                        (named[p], start + p, digests[p], window[p], encoded)
                        for p, encoded in ((places[index], encoded) for index, encoded in batch)
                    ]
                )
                yield len(batch)
        keys += [key for key in named.values() if key not in failed]

    def _keep(
        self, made: Sequence[tuple[str, int, str, Demonstration, Encoded]], *, remove: Sequence[str] = ()
    ) -> None:
        entries = [
            NewEntry(key, position, digest, item, encoded.fused.embeddings, encoded.reading)
            for key, position, digest, item, encoded in made
        ]
        pooled = np.stack([self._reader().pooled(encoded.reading) for *_, encoded in made])
        self._store.add(entries, remove=remove, features={POOLED: pooled})

    def _retag(self, given: Mapping[str, Metadata], held: Mapping[str, Metadata]) -> None:
        changed = {key: fields for key, fields in given.items() if key in held and fields and dict(held[key]) != fields}
        if changed:
            self._store.tag(changed)

    def _key(self, digest: str, demonstration: Demonstration) -> str:
        parts = [digest, demonstration.text, demonstration.answer, self.binding.scope]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def _fused(self, key: str) -> FusedTokens:
        embeddings = self._store.fused(key)
        return FusedTokens(self._encoder.on_device(embeddings) if self._encoder else embeddings, key)

    def _reader(self) -> Encoder:
        if self._encoder is None:
            raise InputError(
                "this bank was opened without a backbone, so it cannot read demonstrations.\n"
                "Next: AIMPipeline.from_pretrained(..., bank=path), or `aim-icl bank add`."
            )
        return self._encoder

    def _check(self, keys: Iterable[str]) -> None:
        keys = list(keys)
        held = self._store.held(keys)
        for key in keys:
            if key not in held:
                raise self._unknown(key)

    def _unknown(self, key: str) -> UnknownEntryError:
        near = did_you_mean(key, self._store.keys(10_000))
        return UnknownEntryError(f"the bank holds no demonstration {key!r}.{near} `bank.keys()` lists them.")


def origin(query: Query) -> str:
    """What a query shares with the demonstration that shows its own image and text."""
    return origin_of(image_digest(query.image), query.text)


def _bar() -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True))
