"""The Demonstration Bank as its users hold it: in memory, or in a folder."""

from __future__ import annotations

import os
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Self

from aim_sdk.bank.binding import check_binding, reads_alike
from aim_sdk.bank.collection import DemonstrationCollection
from aim_sdk.bank.disk import archive, compaction, maintenance
from aim_sdk.bank.disk.folder import INDEX, prepare
from aim_sdk.bank.disk.maintenance import BankStats
from aim_sdk.bank.disk.store import DiskStore
from aim_sdk.bank.store import MemoryStore
from aim_sdk.config import Binding
from aim_sdk.errors import AIMError, FingerprintError, InputError, did_you_mean
from aim_sdk.files.atomic import expanded
from aim_sdk.files.images import describe
from aim_sdk.reading.encoder import Encoder
from aim_sdk.support.progress import advancing


class NewBankWarning(UserWarning):
    """There was no bank to add to or to answer from, so an empty one was created."""


class DemonstrationBank(DemonstrationCollection):
    """Keeps demonstrations with their fused tokens; adding one again reads nothing.

    ``AIMPipeline.bank`` is one: in memory, or a `DiskBank`, where every demonstration whose
    `add` has returned survives a crash and a power loss. It is a mapping:
    ``bank[key]`` is an entry, ``key in bank``, ``len(bank)``, ``for key in bank``, and ``bank.values()`` the entries.
    Two banks are equal only if they are one object.
    """

    @classmethod
    def in_memory(cls, encoder: Encoder) -> Self:
        """A bank that lives as long as the process."""
        return cls(MemoryStore(), encoder.binding, encoder)

    @staticmethod
    def check_there(path: str | Path) -> None:
        """Refuse a folder that is not a bank, without opening it.

        Raises:
            ArtifactNotFoundError: no bank is there, or the folder holds something else.
            CorruptArtifactError: its index is missing.
        """
        prepare(expanded(path), may_create=False)

    @staticmethod
    def open(
        path: str | Path,
        *,
        encoder: Encoder | None = None,
        create: bool = False,
        keep_readings: bool = False,
        keep_images: bool = False,
        images: str | Path | None = None,
    ) -> DiskBank:
        """Open a bank on disk.

        Args:
            path: a folder of its own.
            encoder: what reads demonstrations (``AIMPipeline.encoder``); without one the bank can be searched, changed,
                checked and exported, but not added to.
            create: create an empty bank if there is none, with a `NewBankWarning`; needs an ``encoder``.
            keep_readings: a new bank also keeps readings, so that another projector needs nothing read again.
            keep_images: a new bank also keeps the image files. Images that are not files are always kept.
            images: a folder that image files were moved to: each is looked for below it by the end of its path.

        Raises:
            ArtifactNotFoundError: no bank is there, or the folder holds something else.
            FingerprintError: it was made with another backbone, projector or prompt format.
            CorruptArtifactError: its index is damaged or of a newer version.
            ArtifactWriteError: it cannot be created there.
            InputError: the existing bank was made without keeping what is asked for; or ``create`` without an encoder.
        """
        if encoder is not None and not hasattr(encoder, "binding"):
            raise InputError(f"encoder: {type(encoder).__name__}; expected a pipeline's (pipe.encoder), or None.")
        if create and encoder is None:
            raise InputError("create=True needs an encoder: a bank belongs to a backbone and a projector.")
        path = expanded(path)
        new = create and not os.path.exists(path / INDEX)  # also False for what cannot be a name
        binding = encoder.binding if encoder is not None and create else None
        store = DiskStore(path, binding, keep_readings=keep_readings, keep_images=keep_images)
        try:
            if encoder is not None:
                _check_encoder(store, encoder.binding)
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
            warnings.warn(_made(store.path), stacklevel=2)
        return DiskBank(store, store.binding, encoder, images)

    @staticmethod
    def import_file(
        file: str | Path, into: str | Path, *, encoder: Encoder | None = None, progress: bool = False
    ) -> DiskBank:
        """Add the demonstrations of an exported bank to the bank in a folder, and return that bank, open.

        If there is no bank, one like the exported one is created. The whole file is checked before anything is added.
        Interrupted, the same call resumes. The inverse of [`export`][aim_sdk.bank.bank.DiskBank.export].

        Args:
            file: what ``export`` wrote.
            into: the bank's folder.
            encoder: see `open`.
            progress: show a progress bar on stderr.

        Raises:
            ArtifactNotFoundError: no such file.
            CorruptArtifactError: it is not an exported bank, or is cut or altered; nothing is added and no bank is
                created.
            FingerprintError: it was made with another backbone, projector or prompt format.
        """
        path, file = expanded(into), expanded(file)
        if not os.path.exists(path / INDEX):
            archive.check(file)  # before a bank is made for it
        binding, keep_readings, keep_images = archive.binding_of(file)
        if encoder is not None:
            check_binding(binding, encoder.binding, f"{file}: this exported bank", "the pipeline")
        store = DiskStore(path, binding, keep_readings=keep_readings, keep_images=keep_images)
        bank = DiskBank(store, store.binding, encoder)
        try:
            bank.import_from(file, progress=progress)
        except BaseException:
            bank.close()
            raise
        return bank


class DiskBank(DemonstrationBank):
    """A bank in a folder, with its maintenance."""

    _store: DiskStore

    def stats(self) -> BankStats:
        """Count demonstrations, fused tokens and bytes."""
        return maintenance.stats(self._store)

    def verify(self, *, progress: bool = False) -> list[str]:
        """Read every byte; return what is damaged, one line each, with what to do."""
        with advancing("verifying", len(self), shown=progress) as advance:
            return maintenance.verify(self._store, advance)

    def compact(self, *, progress: bool = False) -> None:
        """Reclaim the space of what was removed or replaced; a crash at any moment loses nothing.

        Raises:
            CorruptArtifactError: a demonstration is damaged; nothing is changed.
        """
        with advancing("compacting", len(self), shown=progress) as advance:
            compaction.compact(self._store, advance)

    def export(self, path: str | Path, *, progress: bool = False) -> int:
        """Write the bank to one file, whole or not at all; return its bytes."""
        with advancing("exporting", len(self), shown=progress) as advance:
            return archive.export(self._store, expanded(path), advance)

    def import_from(self, path: str | Path, *, progress: bool = False) -> int:
        """Add the demonstrations of an exported bank that are not here yet; return how many.

        Raises:
            FingerprintError: it was made with another backbone, projector or prompt format.
            CorruptArtifactError: it is cut or altered; nothing is added.
        """
        with advancing("importing", None, shown=progress) as advance:
            return archive.import_(self._store, expanded(path), advance)


def _check_encoder(store: DiskStore, wanted: Binding) -> None:
    """Refuse an encoder whose fused tokens are not the bank's, and say what converts the bank."""
    kept = store.keep_readings and reads_alike(store.binding, wanted)
    ours, theirs = store.binding.fingerprint.backend, wanted.fingerprint.backend
    if ours != theirs and store.binding.differences(wanted):
        raise FingerprintError(
            f"{store.path}: this bank was made with `--backend {ours}`; pass it. The backend here is {theirs!r}.\n"
            f"Or convert it: `aim-icl bank convert {store.path} NEW_FOLDER --backend {theirs}` reads the "
            "demonstrations again."
        )
    advice = f"\nNext: `aim-icl bank convert {store.path} NEW_FOLDER` with this --backend, --model and --projector " + (
        "projects the kept readings again." if kept else "reads the demonstrations again."
    )
    check_binding(store.binding, wanted, f"{store.path}: this bank", "the pipeline", advice)


def _made(path: Path) -> NewBankWarning:
    near: list[str] = []
    with suppress(OSError):  # an unreadable neighbour is not a reason to fail
        near = [each.parent.name for each in path.parent.glob(f"*/{INDEX}") if each.parent != path]
    return NewBankWarning(f"{describe(path)}: no bank was here; created an empty one.{did_you_mean(path.name, near)}")
