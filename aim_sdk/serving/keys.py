"""API keys: who asks, and what they may. Only hashes are kept: who reads the file cannot ask."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Final, Literal

import yaml
from pydantic import Field

from aim_sdk.errors import InputError
from aim_sdk.files.atomic import write_atomic
from aim_sdk.files.settings import Settings
from aim_sdk.files.yaml_files import read_yaml
from aim_sdk.serving.refusals import Refusal
from aim_sdk.serving.settings import ServeSettings

VARIABLE: Final = "AIM_SERVE_KEY"
"""One key that may do everything."""
SHORTEST: Final = 16
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Of banks, and of keys."""

log = logging.getLogger("aim_sdk.serving")

Right = Literal["ask", "write"]


class Rights(Settings):
    """What the holder of a key may do."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="of the key")
    may: tuple[Right, ...] = Field(
        default=("ask",), min_length=1, description="ask: answer and look; write: change banks"
    )
    banks: tuple[str, ...] | None = Field(default=None, description="names; none: all")
    per_minute: int | None = Field(default=None, ge=1, description="requests; none: as many as there are")
    at_once: int | None = Field(default=None, ge=1, description="requests that are not answered yet")


class KeyFile(Settings):
    """A file of keys."""

    keys: Mapping[str, Rights] = Field(min_length=1, description="by the name of who holds it")


class Caller:
    """Who asks, what they may, and how much they have asked."""

    def __init__(self, name: str, rights: Rights | None) -> None:
        self.name, self._rights = name, rights
        self._lock, self._open = threading.Lock(), 0
        self._budget, self._since = float(rights.per_minute or 0) if rights else 0.0, time.monotonic()

    def has(self, name: str, rights: Rights) -> bool:
        """Whether it is that one, with these rights."""
        return (self.name, self._rights) == (name, rights)

    def sees(self, bank: str) -> bool:
        """Whether that bank is there for them."""
        return self._rights is None or self._rights.banks is None or bank in self._rights.banks

    @property
    def may(self) -> tuple[Right, ...]:
        """What they may do."""
        return ("ask", "write") if self._rights is None else self._rights.may

    @property
    def writes(self) -> bool:
        """Whether they may change banks."""
        return "write" in self.may

    @contextmanager
    def asking(self) -> Iterator[None]:
        """One request of theirs.

        Raises:
            Refusal: it is one too many.
        """
        with self._lock:
            self._count()
            self._open += 1
        try:
            yield
        finally:
            with self._lock:
                self._open -= 1

    def _count(self) -> None:
        if self._rights is None:
            return
        if self._rights.at_once is not None and self._open >= self._rights.at_once:
            raise _too_many(f"{self._open} requests of this key are not answered yet; that is as many as it may.", 1)
        if (most := self._rights.per_minute) is not None:
            now = time.monotonic()
            self._budget = min(most, self._budget + (now - self._since) * most / 60)
            self._since = now
            if self._budget < 1:
                raise _too_many(f"this key may ask {most} times a minute.", 1 + int((1 - self._budget) * 60 / most))
            self._budget -= 1


class Keys:
    """All keys of a service; without any, everybody may do everything. A file that changes is read again.

    Args:
        rights: by name; None asks for no key.
        file: where they were read.
    """

    def __init__(self, rights: Mapping[str, Rights] | None, file: Path | None = None) -> None:
        self._anyone = Caller("anyone", None) if rights is None else None
        self._file, self._changed = file, _changed(file)
        self._callers = {one.sha256: Caller(name, one) for name, one in (rights or {}).items()}

    @property
    def needed(self) -> bool:
        """Whether a request must bring one."""
        return self._anyone is None

    def _look(self) -> None:
        """Take what the file says now; one that cannot be read changes nothing."""
        if self._file is None or (changed := _changed(self._file)) == self._changed:
            return
        self._changed = changed
        try:
            rights = _rights(self._file)
        except InputError as error:
            log.error("the keys stay as they were: %s", error)
            return
        held = self._callers
        self._callers = {
            one.sha256: held[one.sha256]
            if one.sha256 in held and held[one.sha256].has(name, one)
            else Caller(name, one)
            for name, one in rights.items()
        }

    def caller(self, authorization: str | None) -> Caller:
        """Who asks, by the header of that name.

        Raises:
            Refusal: there is no key, or one that nobody has.
        """
        if self._anyone is not None:
            return self._anyone
        self._look()
        kind, _, key = (authorization or "").partition(" ")
        if kind.lower() != "bearer" or not key.strip():
            raise Refusal(
                HTTPStatus.UNAUTHORIZED, "missing_api_key", "no API key; expected a header Authorization: Bearer KEY."
            )
        asked, found = digest_of(key.strip()), None
        for known, caller in self._callers.items():  # all of them: the time tells nothing
            if hmac.compare_digest(known, asked):
                found = caller
        if found is None:
            raise Refusal(HTTPStatus.UNAUTHORIZED, "invalid_api_key", "this API key is not one of this service's.")
        return found

    @classmethod
    def read(cls, file: Path | None) -> Keys:
        """The keys of a file and of the environment; without either, none are needed.

        Raises:
            InputError: the file cannot be read, two names have one key, or the environment's is short.
        """
        rights = _rights(file)
        return cls(rights or None, file)


def _rights(file: Path | None) -> dict[str, Rights]:
    """Those of a file, and of the environment."""
    rights: dict[str, Rights] = {} if file is None else dict(_read(file).keys)
    if (own := os.environ.get(VARIABLE)) is not None:
        if len(own) < SHORTEST:
            raise InputError(
                f"{VARIABLE}: a key of {len(own)} characters; expected at least {SHORTEST}. "
                "Next: `aim-icl serve-key NAME --file FILE` makes one."
            )
        rights[VARIABLE] = Rights(sha256=digest_of(own), may=("ask", "write"))
    if len({one.sha256 for one in rights.values()}) < len(rights):
        raise InputError(f"{file}: two names have the same key; each needs one of its own.")
    return rights


def _read(file: Path) -> KeyFile:
    try:
        return read_yaml(file, KeyFile)
    except InputError as error:
        raise InputError(f"{error}\nNext: `aim-icl serve-key NAME --file {file}` makes a key, and the file.") from error


def _changed(file: Path | None) -> tuple[int, int] | None:
    try:
        found = None if file is None else file.stat()
    except OSError:
        return None
    return None if found is None else (found.st_mtime_ns, found.st_ino)


def check_keys(settings: ServeSettings, keys: Keys) -> None:
    """Refuse to let a whole network ask without keys.

    Raises:
        InputError: it would.
    """
    if not settings.is_loopback and not keys.needed:
        raise InputError(
            f"--host {settings.host}: other machines would reach the service, and it asks for no key.\n"
            f"Next: `aim-icl serve-key NAME --file keys.yaml`, then --keys keys.yaml (or {VARIABLE} in the "
            "environment); or leave --host out."
        )


def digest_of(key: str) -> str:
    """What is kept of a key. Keys are drawn, not thought of: one round is enough."""
    return hashlib.sha256(key.encode()).hexdigest()


def add_key(
    file: Path,
    name: str,
    *,
    may: tuple[Right, ...],
    banks: tuple[str, ...] | None,
    per_minute: int | None = None,
    at_once: int | None = None,
) -> str:
    """Draw a key, add its hash to a file, and return it: it is kept nowhere.

    Raises:
        InputError: the file has that name, or cannot be read.
    """
    if not NAME.fullmatch(name):
        raise InputError(f"{name!r} cannot name a key; expected 1 to 64 letters, digits, '.', '_' and '-'.")
    for bank in banks or ():
        if not NAME.fullmatch(bank):
            raise InputError(f"--bank {bank}: no bank can have that name.")
    if not file.parent.is_dir():
        raise InputError(f"{file}: there is no folder {file.parent}.")
    held = dict(_read(file).keys) if file.exists() else {}
    if name in held:
        raise InputError(f"{file}: {name!r} has a key. Next: another name, or delete its lines from the file.")
    key = f"aim-{secrets.token_urlsafe(32)}"
    held[name] = Rights(sha256=digest_of(key), may=may, banks=banks, per_minute=per_minute, at_once=at_once)
    made = KeyFile(keys=held).model_dump(mode="json", exclude_defaults=True)
    write_atomic(file, yaml.safe_dump(made, sort_keys=False).encode())
    return key


def _too_many(message: str, seconds: int) -> Refusal:
    return Refusal(HTTPStatus.TOO_MANY_REQUESTS, "rate_limit_exceeded", message, retry_after=seconds)
