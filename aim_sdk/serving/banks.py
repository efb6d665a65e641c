"""The banks of a service: folders below one folder, opened once."""

from __future__ import annotations

import shutil
import threading
import uuid
import warnings
from collections import defaultdict
from http import HTTPStatus
from pathlib import Path
from typing import Final

from aim_sdk.bank import DemonstrationBank, NewBankWarning
from aim_sdk.bank.bank import DiskBank
from aim_sdk.bank.disk.folder import INDEX
from aim_sdk.chat.chat import Chat
from aim_sdk.chat.tokens import KeptTokens
from aim_sdk.errors import did_you_mean
from aim_sdk.injection.few_shot import FewShotModel
from aim_sdk.reading.encoder import Encoder
from aim_sdk.selection.base import Selector
from aim_sdk.serving.keys import NAME
from aim_sdk.serving.refusals import Refusal

MEMORY: Final = 1 << 26
"""Bytes of fused tokens that are kept of one caller's conversations."""
_GONE: Final = ".deleted-"


class Banks:
    """Opens banks by name, and makes and deletes them.

    Every caller has a memory of their own for the demonstrations that their conversations bring.

    Args:
        folder: where they are; created if it does not exist.
        encoder: reads demonstrations.
        selector: chooses them, unless a request names another one.
    """

    def __init__(self, folder: Path, encoder: Encoder, selector: Selector) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._encoder, self._selector = folder, encoder, selector
        self._kept: dict[str, KeptTokens] = defaultdict(lambda: KeptTokens(MEMORY))
        self._none = DemonstrationBank.in_memory(encoder)
        self._open: dict[str, DiskBank] = {}
        self._opened: dict[str, tuple[int, int]] = {}
        self._published: set[str] = set()
        self._chats: dict[tuple[DemonstrationBank, str], Chat] = {}
        self._lock = threading.RLock()
        for left in folder.glob(f"{_GONE}*"):  # a service that was killed while it deleted
            shutil.rmtree(left, ignore_errors=True)

    def names(self) -> list[str]:
        """All that can be opened, in order."""
        own = {one.name for one in self._folder.iterdir() if NAME.fullmatch(one.name) and _identity(one)}
        return sorted(own | self._published)

    def use(self, name: str, bank: DiskBank) -> None:
        """Answer with a published bank from now on; what has begun ends with the one before.

        Raises:
            Refusal: it cannot be a name, or a bank of the folder has it.
        """
        with self._lock:
            if name not in self._published:
                self.free(name)
            self._published.add(name)
            before = self._open.get(name)
            self._open[name] = bank
            self._chats = {key: chat for key, chat in self._chats.items() if key[0] is not before}

    def is_published(self, name: str) -> bool:
        """Whether it is made elsewhere, and read only here."""
        return name in self._published

    def check_writable(self, name: str) -> None:
        """Refuse to change a published bank.

        Raises:
            Refusal: it is one.
        """
        if self.is_published(name):
            raise Refusal(
                HTTPStatus.FORBIDDEN, "read_only", f"bank {name!r} is published elsewhere: it is read only here."
            )

    def bank(self, name: str) -> DiskBank:
        """The bank of that name.

        Raises:
            Refusal: there is none.
            ArtifactError: it is damaged, or made with another backbone, projector or prompt format.
        """
        path = self._path(name)
        with self._lock:
            if name in self._published:
                return self._open[name]
            now = _identity(path)
            if name in self._open and now == self._opened[name]:
                return self._open[name]
            self._forget(name)  # another service has deleted it, and perhaps made another one
            if now is None:
                near = did_you_mean(name, self.names())
                raise Refusal(HTTPStatus.NOT_FOUND, "bank_not_found", f"no bank named {name!r}.{near}")
            return self._keep(name, DemonstrationBank.open(path, encoder=self._encoder))

    def _keep(self, name: str, bank: DiskBank) -> DiskBank:
        self._open[name], self._opened[name] = bank, _identity(self._folder / name) or (0, 0)
        return bank

    def _forget(self, name: str) -> None:
        if (held := self._open.pop(name, None)) is not None:
            self._chats = {key: chat for key, chat in self._chats.items() if key[0] is not held}
            held.close()

    def chat(self, bank: DiskBank | None, caller: str) -> Chat:
        """Conversations of one caller with a bank, or with none."""
        held = self._none if bank is None else bank
        with self._lock:
            if (held, caller) not in self._chats:
                model = FewShotModel(self._encoder, held, self._selector)
                self._chats[held, caller] = Chat(model, self._kept[caller])
            return self._chats[held, caller]

    def create(self, name: str, *, keep_readings: bool) -> DiskBank:
        """Make an empty bank, which keeps its images.

        Raises:
            Refusal: there is one of that name, or it cannot be a name.
        """
        path = self.free(name)
        with self._lock, warnings.catch_warnings():
            warnings.simplefilter("ignore", NewBankWarning)
            self._forget(name)
            made = DemonstrationBank.open(
                path, encoder=self._encoder, create=True, keep_images=True, keep_readings=keep_readings
            )
            return self._keep(name, made)

    def import_file(self, name: str, file: Path) -> DiskBank:
        """Make a bank out of an exported one.

        Raises:
            Refusal: there is one of that name, or it cannot be a name.
            ArtifactError: the file is none, or of another backbone, projector or prompt format.
        """
        path = self.free(name)
        part = self._folder / f"{_GONE}{uuid.uuid4().hex}"
        try:
            DemonstrationBank.import_file(file, part, encoder=self._encoder).close()
            with self._lock:
                self.free(name)
                part.rename(path)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return self.bank(name)

    def delete(self, name: str) -> None:
        """Delete a bank and all that it holds.

        Raises:
            Refusal: there is none.
        """
        path = self._path(name)
        with self._lock:
            if _identity(path) is None:
                near = did_you_mean(name, self.names())
                raise Refusal(HTTPStatus.NOT_FOUND, "bank_not_found", f"no bank named {name!r}.{near}")
            gone = self._folder / f"{_GONE}{uuid.uuid4().hex}"
            path.rename(gone)
            self._forget(name)
        shutil.rmtree(gone, ignore_errors=True)

    def close(self) -> None:
        """Close all."""
        with self._lock:
            for held in self._open.values():
                held.close()
            self._open.clear()

    def free(self, name: str) -> Path:
        """The folder of a name that no bank has yet.

        Raises:
            Refusal: one has it, or it cannot be a name.
        """
        path = self._path(name)
        if _identity(path) is not None or name in self._published:
            raise Refusal(HTTPStatus.CONFLICT, "bank_exists", f"there is a bank named {name!r}.", "name")
        if path.exists():
            what = f"something else named {name!r} is in the folder of the banks."
            raise Refusal(HTTPStatus.CONFLICT, "name_taken", what, "name")
        return path

    def _path(self, name: str) -> Path:
        if not NAME.fullmatch(name):
            raise Refusal(
                HTTPStatus.BAD_REQUEST,
                "invalid_name",
                f"{name[:80]!r} cannot name a bank; expected 1 to 64 letters, digits, '.', '_' and '-', a letter or a "
                "digit first.",
                "name",
            )
        return self._folder / name


def _identity(path: Path) -> tuple[int, int] | None:
    """Which bank is in a folder: another one, if it was deleted and made again; None: there is none."""
    try:
        found = (path / INDEX).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
