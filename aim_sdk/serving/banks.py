"""The banks of a service: folders below one folder, opened once."""

from __future__ import annotations

import re
import shutil
import threading
import uuid
import warnings
from collections.abc import Iterable
from http import HTTPStatus
from pathlib import Path
from typing import Final

from aim_sdk.bank import DemonstrationBank, NewBankWarning
from aim_sdk.bank.bank import DiskBank
from aim_sdk.chat.chat import Chat
from aim_sdk.chat.tokens import CAPACITY, KeptTokens
from aim_sdk.errors import ArtifactError, did_you_mean
from aim_sdk.injection.few_shot import FewShotModel
from aim_sdk.reading.encoder import Encoder
from aim_sdk.selection.base import Selector
from aim_sdk.serving.refusals import Refusal

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_GONE: Final = ".deleted-"


class Banks:
    """Opens banks by name, and makes and deletes them.

    Args:
        folder: where they are; created if it does not exist.
        encoder: reads demonstrations.
        selector: chooses them, unless a request names another one.
        callers: who may ask: each has its own memory of the demonstrations that its conversations bring.
    """

    def __init__(self, folder: Path, encoder: Encoder, selector: Selector, callers: Iterable[str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._encoder, self._selector = folder, encoder, selector
        names = list(callers)
        self._kept = {name: KeptTokens(CAPACITY // len(names)) for name in names}
        self._none = DemonstrationBank.in_memory(encoder)
        self._open: dict[str, DiskBank] = {}
        self._published: set[str] = set()
        self._chats: dict[tuple[DemonstrationBank, str], Chat] = {}
        self._lock = threading.RLock()
        for left in folder.glob(f"{_GONE}*"):  # a service that was killed while it deleted
            shutil.rmtree(left, ignore_errors=True)

    def names(self) -> list[str]:
        """All that can be opened, in order."""
        own = {one.name for one in self._folder.iterdir() if NAME.fullmatch(one.name) and _is_bank(one)}
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

    def check_writable(self, name: str) -> None:
        """Refuse to change a published bank.

        Raises:
            Refusal: it is one.
        """
        if name in self._published:
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
            held = self._open.get(name)
            if held is not None and (name in self._published or _is_bank(path)):
                return held
            if not _is_bank(path):
                raise Refusal(
                    HTTPStatus.NOT_FOUND, "bank_not_found", f"no bank named {name!r}.{did_you_mean(name, self.names())}"
                )
            self._open[name] = DemonstrationBank.open(path, encoder=self._encoder)
            return self._open[name]

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
            self._open[name] = DemonstrationBank.open(
                path, encoder=self._encoder, create=True, keep_images=True, keep_readings=keep_readings
            )
            return self._open[name]

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
            if not _is_bank(path):
                self.bank(name)  # which says what is there
            held, gone = self._open.pop(name, None), self._folder / f"{_GONE}{uuid.uuid4().hex}"
            path.rename(gone)
            self._chats = {key: chat for key, chat in self._chats.items() if key[0] is not held}
        if held is not None:
            held.close()
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
        if path.exists() or name in self._published:
            raise Refusal(HTTPStatus.CONFLICT, "bank_exists", f"there is a bank named {name!r}.", "name")
        return path

    def _path(self, name: str) -> Path:
        if not NAME.fullmatch(name):
            raise Refusal(
                HTTPStatus.BAD_REQUEST,
                "invalid_name",
                f"{name[:80]!r} cannot name a bank; expected letters, digits, '.', '_' and '-', no sign first.",
                "name",
            )
        return self._folder / name


def _is_bank(path: Path) -> bool:
    try:
        DemonstrationBank.check_there(path)
    except ArtifactError:
        return False
    return True
