"""Demonstrations by key, over any kind of store: what all banks share."""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, Mapping, Sequence, Sized, ValuesView
from itertools import islice
from pathlib import Path
from typing import NoReturn, Self

from aim_sdk.bank import verdict
from aim_sdk.bank.adding import Adder, OnError, check_on_error, gave_nothing
from aim_sdk.bank.binding import key_of
from aim_sdk.bank.entry import BankEntry
from aim_sdk.bank.in_order import EntriesInOrder, ItemsInOrder
from aim_sdk.bank.photos import Photos
from aim_sdk.bank.store import Listed, Store, Where, check_fields, checked_where, matches
from aim_sdk.bank.verdict import BankVerdict
from aim_sdk.bank.view import BankView, without_backbone
from aim_sdk.config import Binding
from aim_sdk.errors import AIMError, InputError, UnknownEntryError, did_you_mean
from aim_sdk.files.images import image_digest
from aim_sdk.reading.encoder import BATCH_TOKENS, Encoded, Encoder
from aim_sdk.support.numbers import whole_number
from aim_sdk.support.progress import advancing
from aim_sdk.types import Demonstration, FusedTokens, Metadata, plain_metadata

WINDOW = 1024
"""Demonstrations that are sorted by length together."""


class DemonstrationCollection(Mapping[str, BankEntry]):
    """Demonstrations with their fused tokens, in the order they were added; a mapping from key to entry.

    Args:
        store: where entries are kept.
        binding: what their fused tokens depend on: backbone, projector, prompt format; part of every key.
        encoder: reads and projects; None for a bank that is only read.
        images: a folder that image files were moved to: each is looked for below it by the end of its path.
    """

    def __init__(
        self, store: Store, binding: Binding, encoder: Encoder | None = None, images: str | Path | None = None
    ) -> None:
        self._store, self.binding, self._encoder = store, binding, encoder
        self._photos = Photos(store, images)
        self._view: BankView | None = None
        self._viewed: Sequence[Listed] = ()
        self._verdict: BankVerdict | None = None

    def key(self, demonstration: Demonstration) -> str:
        """The content key: a SHA-256 over image content, text, answer and the bank's binding."""
        return key_of(self.binding, image_digest(demonstration.image), demonstration)

    def holds(self, demonstration: Demonstration) -> bool:
        """Whether the demonstration (its image's content, text and answer) is here.

        Raises:
            InputError: it is something else; for a key there is ``key in bank``.
        """
        if not isinstance(demonstration, Demonstration):
            what = type(demonstration).__name__
            raise InputError(f"bank.holds: {what}; expected a Demonstration. Whether a key is here: `key in bank`.")
        return self.key(demonstration) in self

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

        They are read in batches of similar length, while the next images are decoded. Every batch is kept as soon as it
        is read: an interruption loses at most the batches in flight, and the same call again resumes. The order is the
        same as without the interruption. Given metadata replaces existing metadata.

        Args:
            demonstrations: one, or any number; an iterator is read as it is needed.
            batch_tokens: positions of one forward, visual tokens and padding included.
            progress: show a progress bar on stderr.
            total: how many there are, for the bar, if ``demonstrations`` has no length.
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

    def project_from(self, source: DemonstrationCollection, keys: Sequence[str]) -> None:
        """Add the demonstrations of a bank that keeps readings, projected by this bank's projector."""
        self._adder().project(source._store, keys)

    def encoded(self, key: str) -> Encoded:
        """The reading and the fused tokens of an entry of a bank that keeps readings.

        Raises:
            InputError: it keeps none.
        """
        reading = self._store.reading(key)
        if reading is None:
            raise InputError(f"{self!r} keeps no readings.")
        return Encoded(reading, self._fused(key))

    def remove(self, *keys: str) -> None:
        """Remove entries, all or none.

        Raises:
            UnknownEntryError: no entry has that key.
        """
        self._check(keys)
        self._store.add([], remove=keys)

    def replace(self, key: str, demonstration: Demonstration) -> str:
        """Replace a demonstration by another one at the same position, in one step; return its key.

        Raises:
            UnknownEntryError: no entry has that key.
            InputError: the new one is here already.
        """
        self._check([key])
        return self._adder().replace(key, demonstration)

    def tag(self, key: str, /, **metadata: str | int | float | bool | None) -> None:
        """Set fields of an entry's metadata; None drops a field.

        Raises:
            UnknownEntryError: no entry has that key.
            InputError: a value is not a string or finite number.
        """
        held = self._check([key])
        fields = {**held[key], **metadata}
        kept = plain_metadata({name: value for name, value in fields.items() if value is not None})
        self._store.tag({key: kept})

    def matching(self, where: Where) -> list[str]:
        """The keys of the entries with that metadata, in the order of their addition.

        Args:
            where: ``{field: value}``, or ``{field: [values]}`` for any of them.

        Raises:
            InputError: it is not such a filter, or names a field that no entry has.
        """
        entries = self.view().entries
        check_fields(checked_where(where), entries)
        return [entry.key for entry in entries if matches(entry.metadata, where)]

    def view(self) -> BankView:
        """The bank as it is now, for selectors: keys, metadata and vectors. The same object until something changes."""
        entries = self._store.listed()
        view = self._view
        if view is None or self._viewed is not entries:
            self._viewed = entries
            self._view = view = BankView(entries, self._store, self._photos, self._encoder)
        return view

    @property
    def path(self) -> Path | None:
        """Its folder; None in memory."""
        return self._store.path

    @property
    def keeps_readings(self) -> bool:
        """Whether another projector can use what is kept."""
        return self._store.keep_readings

    @property
    def verdict(self) -> BankVerdict | None:
        """Whether the demonstrations help, as `AIMPipeline.assess` found; None if that was not asked yet.

        Raises:
            CorruptArtifactError: its file is damaged.
        """
        return self._verdict if self.path is None else verdict.read(self.path)

    def keep_verdict(self, made: BankVerdict) -> None:
        """Keep what to run with these demonstrations; ``mode="auto"`` takes it from here.

        Raises:
            ArtifactWriteError: it cannot be written.
        """
        self._verdict = made
        if self.path is not None:
            verdict.write(self.path, made)

    def check_images(self, *, progress: bool = False) -> list[str]:
        """Return which image files are missing or hold a different image, one line each.

        Their fused tokens are kept: modes that need no image of a demonstration work without the files.
        """
        with advancing("checking images", len(self), shown=progress) as advance:
            return self._photos.problems(advance)

    def close(self) -> None:
        """Close the files. Optional: nothing is lost without it."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __getitem__(self, key: str) -> BankEntry:
        if not isinstance(key, str):
            raise self._unknown(key)
        try:
            found = self._photos.placed(self._store.demonstration(key))
            return BankEntry(key, found, lambda: self._fused(key), lambda: self._photos.checked(key))
        except KeyError:
            raise self._unknown(key) from None

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and bool(self._store.held([key]))

    def __iter__(self) -> Iterator[str]:
        return iter(self._store.ordered_keys())

    def __len__(self) -> int:
        return len(self._store)

    def values(self) -> ValuesView[BankEntry]:
        """The entries in order; those removed in the meantime are left out."""
        return EntriesInOrder(self)

    def items(self) -> ItemsView[str, BankEntry]:
        """Keys and entries in order; those removed in the meantime are left out."""
        return ItemsInOrder(self)

    __eq__ = object.__eq__  # compared by identity: comparing contents would load both banks
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        where = "in memory" if self.path is None else str(self.path)
        try:
            return f"<{type(self).__name__} {where}: {len(self)} demonstrations>"
        except AIMError:  # closed, or its folder is gone
            return f"<{type(self).__name__} {where}: cannot be read>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise InputError(
            "a bank cannot be copied or pickled.\n"
            "Next: pass its path, and open it in each process; `bank.export(file)` writes a copy."
        )

    def _fused(self, key: str) -> FusedTokens:
        try:
            found = self._store.fused(key)
        except KeyError:
            raise self._unknown(key) from None
        embeddings = self._encoder.on_device(found.embeddings) if self._encoder else found.embeddings
        return FusedTokens(embeddings, key, found.token_ids)

    def _adder(self) -> Adder:
        if self._encoder is None:
            raise without_backbone("demonstrations")
        return Adder(self._store, self.binding, self._encoder)

    def _check(self, keys: Sequence[str]) -> dict[str, Metadata]:
        """The metadata of entries, all of which must be here."""
        for key in keys:
            if not isinstance(key, str):
                raise self._unknown(key)
        held = self._store.held(keys)
        for key in keys:
            if key not in held:
                raise self._unknown(key)
        return held

    def _unknown(self, key: object) -> UnknownEntryError:
        if not isinstance(key, str):
            several = ", several as *keys" if isinstance(key, list | tuple | set) else ""
            return UnknownEntryError(
                f"{type(key).__name__} is not a key; expected a string, as in bank.keys(){several}."
            )
        near = did_you_mean(key, self._store.ordered_keys(10_000))
        return UnknownEntryError(
            f"the bank holds no demonstration {key!r}.{near} `aim-icl bank list` (bank.keys()) lists them."
        )
