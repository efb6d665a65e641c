"""The Demonstration Bank as its users hold it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from aim_sdk.bank.adding import Adder, OnError, check_on_error, gave_nothing
from aim_sdk.bank.binding import check_binding, key_of, reads_alike
from aim_sdk.bank.disk import archive, compaction, maintenance
from aim_sdk.bank.disk.folder import INDEX
from aim_sdk.bank.disk.maintenance import BankStats
from aim_sdk.bank.disk.store import DiskStore
from aim_sdk.bank.photos import Photos
from aim_sdk.bank.store import Listed, MemoryStore, Store, Where, matches
from aim_sdk.bank.vectors import Compute, Vectors
from aim_sdk.config import Binding
from aim_sdk.errors import AIMError, InputError, ShotsError, UnknownEntryError, did_you_mean
from aim_sdk.files.atomic import expanded
from aim_sdk.files.images import describe, image_digest
from aim_sdk.reading.encoder import BATCH_TOKENS, Encoder
from aim_sdk.support.numbers import whole_number
from aim_sdk.support.progress import advancing
from aim_sdk.types import Demonstration, FusedTokens, Query, plain_metadata

if TYPE_CHECKING:
    from numpy.typing import NDArray

WINDOW = 1024
"""Demonstrations that are sorted by length together."""


class NewBankWarning(UserWarning):
    """There was no bank where one was opened to add to or to answer from: an empty one is made."""


@dataclass(frozen=True)
class BankEntry:
    """A demonstration, its content key, and the fused tokens that stand for it (loaded when they are first used)."""

    key: str
    demonstration: Demonstration
    _load: Callable[[], FusedTokens] = field(repr=False, compare=False)
    _check: Callable[[], Demonstration] = field(repr=False, compare=False)

    @cached_property
    def fused(self) -> FusedTokens:
        """The fused tokens, on the backbone's device where there is one."""
        return self._load()

    def checked(self) -> Demonstration:
        """The demonstration, once its image is known to be the one that was read.

        Raises:
            ImageError: the file is not there any more, or holds another image.
        """
        return self._check()


class DemonstrationBank:
    """Keeps demonstrations with their fused tokens, in the order they were added; adding one again reads nothing.

    ``AIMPipeline.bank`` is one. Without a path it lives in memory; `open` opens one on disk, where every
    demonstration whose [`add`][aim_sdk.bank.bank.DemonstrationBank.add] has returned survives a crash and a power loss.

    Args:
        store: where entries are kept.
        binding: what their fused tokens depend on: backbone, projector, prompt format; part of every key.
        encoder: reads and projects; None for a bank that is only looked at.
        images: see `open`.
    """

    def __init__(
        self, store: Store, binding: Binding, encoder: Encoder | None = None, images: str | Path | None = None
    ) -> None:
        self._store, self.binding, self._encoder = store, binding, encoder
        self._photos = Photos(store, images)
        self._vectors = Vectors(store, self._photos)

    @classmethod
    def in_memory(cls, encoder: Encoder) -> DemonstrationBank:
        """A bank that lives as long as the process."""
        return cls(MemoryStore(), encoder.binding, encoder)

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        encoder: Encoder | None = None,
        keep_readings: bool = False,
        keep_images: bool = False,
        images: str | Path | None = None,
    ) -> DemonstrationBank:
        """Open a bank on disk; with an encoder, one is made where there is none, with a `NewBankWarning`.

        Args:
            path: a folder of its own.
            encoder: what reads demonstrations (``AIMPipeline.encoder``); without one the bank can be searched, changed,
                checked and exported, but not added to.
            keep_readings: a new bank keeps readings, too: another projector then needs nothing read again.
            keep_images: a new bank keeps the files of images, too. Images that are no files are always kept.
            images: a folder that image files were moved to: each is looked for below it by the end of its path.

        Raises:
            ArtifactNotFoundError: no bank is there, or the folder holds something else.
            FingerprintError: it was made with another backbone, projector or prompt format.
            CorruptArtifactError: its index is damaged or of a newer version.
            ArtifactWriteError: it cannot be made there.
            InputError: it is to keep what it does not.
        """
        path = expanded(path)
        new = encoder is not None and not os.path.exists(path / INDEX)  # False, too, for what can be no name
        store = DiskStore(
            path, encoder.binding if encoder else None, keep_readings=keep_readings, keep_images=keep_images
        )
        try:
            if encoder is not None:
                kept = store.keep_readings and reads_alike(store.binding, encoder.binding)
                advice = (
                    f"\nNext: `aim-icl bank convert {path} NEW_FOLDER` with this --backend, --model and --projector "
                    + ("projects the kept readings again." if kept else "reads the demonstrations again.")
                )
                check_binding(store.binding, encoder.binding, f"{path}: this bank", "the pipeline", advice)
            for name, asked, kept in (
                ("readings", keep_readings, store.keep_readings),
                ("images", keep_images, store.keep_images),
            ):
                if asked and not kept:
                    raise InputError(
                        f"{path}: this bank was made without keeping {name}. "
                        f"Next: `aim-icl bank convert {path} NEW_FOLDER --keep-{name}`."
                    )
        except AIMError:
            store.close()
            raise
        if new:
            near: list[str] = []
            with suppress(OSError):  # a neighbour that cannot be looked into is no reason to fail
                found = store.path.parent.glob(f"*/{INDEX}")
                near = [each.parent.name for each in found if each.parent != store.path]
            warnings.warn(
                NewBankWarning(
                    f"{describe(path)}: no bank was there; an empty one is made.{did_you_mean(path.name, near)}"
                ),
                stacklevel=2,
            )
        return cls(store, store.binding, encoder, images)

    @classmethod
    def from_export(cls, path: str | Path, file: str | Path) -> DemonstrationBank:
        """Open the bank that takes in an exported one (`import_from`); where there is none, one like it is made.

        Raises:
            ArtifactNotFoundError: no such file.
            CorruptArtifactError: it is no exported bank, or damaged where a bank would be made of it.
        """
        path, file = expanded(path), expanded(file)
        if not os.path.exists(path / INDEX):
            archive.check(file)  # before a bank is made for it
        binding, keep_readings, keep_images = archive.binding_of(file)
        store = DiskStore(path, binding, keep_readings=keep_readings, keep_images=keep_images)
        return cls(store, store.binding)

    def key(self, demonstration: Demonstration) -> str:
        """The content key: a SHA-256 over image content, text, answer and the bank's binding."""
        return key_of(self.binding, image_digest(demonstration.image), demonstration)

    def add(
        self,
        demonstrations: Demonstration | Iterable[Demonstration],
        *,
        batch_tokens: int = BATCH_TOKENS,
        progress: bool = False,
        total: int | None = None,
        on_error: OnError | None = None,
    ) -> list[str]:
        """Read the demonstrations that are not here yet and return the key of each one given.

        They are read in batches of like lengths, the next images decoded meanwhile. Every batch is kept as soon as it
        is read: an interruption loses at most the batches in flight, and the same call again resumes: it leads to the
        order that a call without an interruption leads to. Metadata that is given replaces what is here.

        Args:
            demonstrations: one, or any number; an iterator is read as it is needed.
            batch_tokens: positions of one forward, visual tokens and padding included.
            progress: show a progress bar on stderr.
            total: how many there are, for the bar, where ``demonstrations`` does not say.
            on_error: called with each demonstration that cannot be read, which is then left out; None raises.

        Raises:
            InputError: something else than demonstrations was given, or an iterator gave nothing.
            ImageError: an image cannot be decoded; the batches before it are kept.
            ArtifactWriteError: the disk is full, say; the batches before are kept.
        """
        batch_tokens = whole_number("batch_tokens", batch_tokens, 1)
        check_on_error(on_error)
        if isinstance(demonstrations, Demonstration):
            demonstrations = [demonstrations]
        if isinstance(demonstrations, str | bytes | Mapping) or not isinstance(demonstrations, Iterable):
            raise InputError(f"bank.add: {type(demonstrations).__name__}; expected Demonstration objects.")
        total = len(demonstrations) if isinstance(demonstrations, Sequence) else total
        source, keys, adder, given = iter(demonstrations), list[str](), self._adder(), False
        with advancing("reading demonstrations", total, shown=progress) as advance:
            while window := list(islice(source, WINDOW)):
                given = True
                for done in adder.window(window, keys, batch_tokens, on_error):
                    advance(done)
        if not given and not isinstance(demonstrations, Sized):
            raise gave_nothing("bank.add", demonstrations)
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
        return self._adder().replace(key, demonstration)

    def tag(self, key: str, **metadata: str | int | float | bool | None) -> None:
        """Set fields of an entry's metadata; None drops a field.

        Raises:
            UnknownEntryError: no entry has that key.
            InputError: a value is no string or finite number.
        """
        held = self._store.held([key])
        if key not in held:
            raise self._unknown(key)
        fields = {**held[key], **metadata}
        kept = plain_metadata({name: value for name, value in fields.items() if value is not None})
        self._store.tag({key: kept})

    def first(self, shots: int) -> list[BankEntry]:
        """The ``shots`` entries that were added first.

        Raises:
            ShotsError: the bank holds fewer.
        """
        self.check_shots(shots, len(self))
        return [self[key] for key in self._store.ordered_keys(shots)]

    def keys(self, where: Where | None = None) -> list[str]:
        """The keys of the entries with that metadata, in the order of their addition.

        Args:
            where: ``{field: value}``, or ``{field: [values]}`` for any of them.
        """
        if not where:
            return self._store.ordered_keys()
        return [entry.key for entry in self.listed(where)]

    def listed(self, where: Where | None = None) -> Sequence[Listed]:
        """Key, origin and metadata of the entries, in order: what selectors look at, without loading any."""
        return (
            [entry for entry in self._store.listed() if matches(entry.metadata, where)]
            if where
            else self._store.listed()
        )

    def own(self, query: Query) -> list[int]:
        """Places in `listed` of the query's own demonstrations: with its id, or with its image and text."""
        return self._vectors.own(query)

    def get(self, key: str) -> BankEntry | None:
        """The entry with that key, if it is here."""
        try:
            return self[key] if self._store.held([key]) else None
        except UnknownEntryError:
            return None  # removed in between

    def __getitem__(self, key: str) -> BankEntry:
        try:
            found = self._photos.placed(self._store.demonstration(key))
            return BankEntry(key, found, lambda: self._fused(key), lambda: self._photos.checked(key))
        except KeyError:
            raise self._unknown(key) from None

    def find(self, prefix: str) -> str:
        """The key that begins with ``prefix``, as people copy keys from a list.

        Raises:
            UnknownEntryError: there is none, or more than one.
        """
        found = [key for key in self._store.ordered_keys() if key.startswith(prefix)]
        if not found:
            raise self._unknown(prefix)
        if len(found) > 1:
            near = ", ".join(key[:12] for key in found[:5])
            raise UnknownEntryError(f"{len(found)} entries begin with {prefix!r}: {near}; give more of the key.")
        return found[0]

    def features(self, name: str, compute: Compute | None = None, *, of_images: bool = True) -> NDArray[np.float32]:
        """One vector an entry, ``(entries, dim)``, in the order of `listed`.

        Args:
            name: which vectors; names the model that makes them.
            compute: makes the vectors ``(n, dim)`` of entries that have none yet; they are kept in the bank.
            of_images: ``compute`` looks at images, which must then be those that were read.

        Raises:
            InputError: an entry has none, and there is no ``compute``.
            ImageError: an image was moved or overwritten.
        """
        return self._vectors.matrix(name, compute, of_images=of_images)

    def pooled_queries(self, queries: Sequence[Query]) -> NDArray[np.float32]:
        """The pooled readings ``(queries, hidden)`` of queries, to compare with ``features("reading")``."""
        return self._reader().pooled_queries(queries)

    @property
    def path(self) -> Path | None:
        """Its folder; None in memory."""
        return self._store.path

    @property
    def keeps_readings(self) -> bool:
        """Whether another projector can use what is kept."""
        return isinstance(self._store, MemoryStore) or self._on_disk().keep_readings

    def project_from(self, source: DemonstrationBank, keys: Sequence[str]) -> None:
        """Take demonstrations of a bank that keeps readings, projected by this bank's projector."""
        self._adder().project(source._store, keys)

    def stats(self) -> BankStats:
        """Count demonstrations, fused tokens and bytes."""
        return maintenance.stats(self._on_disk())

    def verify(self, *, progress: bool = False) -> list[str]:
        """Read every byte; return what is damaged, one line each, with what to do."""
        with advancing("verifying", len(self), shown=progress) as advance:
            return maintenance.verify(self._on_disk(), advance)

    def check_images(self, *, progress: bool = False) -> list[str]:
        """Return which image files are not there any more or hold another image, one line each.

        Their fused tokens are kept: modes that look at no image of a demonstration do without the files.
        """
        with advancing("checking images", len(self), shown=progress) as advance:
            return self._photos.problems(advance)

    def compact(self, *, progress: bool = False) -> None:
        """Give back the room of what was removed or replaced; a crash at any moment loses nothing.

        Raises:
            CorruptArtifactError: a demonstration is damaged; nothing is changed.
        """
        with advancing("compacting", len(self), shown=progress) as advance:
            compaction.compact(self._on_disk(), advance)

    def export(self, path: str | Path, *, progress: bool = False) -> int:
        """Write the bank to one file, whole or not at all; return its bytes."""
        with advancing("exporting", len(self), shown=progress) as advance:
            return archive.export(self._on_disk(), expanded(path), advance)

    def import_from(self, path: str | Path, *, progress: bool = False) -> int:
        """Add the demonstrations of an exported bank that are not here yet; return how many.

        Raises:
            FingerprintError: it was made with another backbone, projector or prompt format.
            CorruptArtifactError: it is cut or altered; nothing is added.
        """
        with advancing("importing", None, shown=progress) as advance:
            return archive.import_(self._on_disk(), expanded(path), advance)

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

    def __repr__(self) -> str:
        where = "in memory" if self.path is None else str(self.path)
        return f"<DemonstrationBank {where}: {len(self)} demonstrations>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise InputError(
            "a bank cannot be copied or pickled.\n"
            "Next: pass its path, and open it in each process; `bank.export(file)` writes a copy."
        )

    def __iter__(self) -> Iterator[BankEntry]:
        """Entries in order; those that are removed meanwhile are left out."""
        for key in self._store.ordered_keys():
            if (entry := self.get(key)) is not None:
                yield entry

    def __contains__(self, demonstration: Demonstration) -> bool:
        return bool(self._store.held([self.key(demonstration)]))

    def _fused(self, key: str) -> FusedTokens:
        try:
            embeddings = self._store.fused(key)
        except KeyError:
            raise self._unknown(key) from None
        return FusedTokens(self._encoder.on_device(embeddings) if self._encoder else embeddings, key)

    def _reader(self) -> Encoder:
        if self._encoder is None:
            raise InputError(
                "this bank was opened without a backbone, so it cannot read demonstrations.\n"
                "Next: AIMPipeline.from_pretrained(..., bank=path), or `aim-icl bank add`."
            )
        return self._encoder

    def _adder(self) -> Adder:
        return Adder(self._store, self.binding, self._reader())

    def _on_disk(self) -> DiskStore:
        if not isinstance(self._store, DiskStore):
            raise InputError(
                "this bank lives in memory; open one on disk with AIMPipeline.from_pretrained(..., bank=path)."
            )
        return self._store

    def _check(self, keys: Iterable[str]) -> None:
        keys = list(keys)
        held = self._store.held(keys)
        for key in keys:
            if key not in held:
                raise self._unknown(key)

    def _unknown(self, key: str) -> UnknownEntryError:
        near = did_you_mean(key, self._store.ordered_keys(10_000))
        return UnknownEntryError(
            f"the bank holds no demonstration {key!r}.{near} `aim-icl bank list` (bank.keys()) lists them."
        )
