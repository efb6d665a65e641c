"""Banks that are made elsewhere: an exported file with its hash next to it, on any file system that fsspec reads."""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import fsspec

from aim_sdk.bank import DemonstrationBank
from aim_sdk.bank.bank import DiskBank
from aim_sdk.errors import AIMError, ArtifactNotFoundError, CorruptArtifactError, InputError
from aim_sdk.reading.encoder import Encoder
from aim_sdk.serving.banks import Banks
from aim_sdk.serving.refusals import Refusal

FOLDER: Final = ".published"
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_CHUNK: Final = 1 << 20

log = logging.getLogger("aim_sdk.serving")


def publish(bank: DiskBank, url: str) -> str:
    """Export a bank to a file of any file system, then its SHA-256 to ``url + ".sha256"``; return that.

    Raises:
        InputError: nothing can be written there.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "bank"
        bank.export(file)
        with file.open("rb") as source:
            digest = hashlib.file_digest(source, "sha256").hexdigest()
        with file.open("rb") as source, _opened(url, "wb") as target:
            shutil.copyfileobj(source, target, _CHUNK)
    with _opened(f"{url}.sha256", "wb") as target:
        target.write(f"{digest}  {url.rsplit('/', 1)[-1]}\n".encode())
    return digest


@dataclass(frozen=True, slots=True)
class Published:
    """A published bank."""

    name: str
    url: str

    def digest(self) -> str:
        """Its hash as it is now.

        Raises:
            InputError: it cannot be read.
            CorruptArtifactError: there is no hash.
        """
        with _opened(f"{self.url}.sha256", "rb", self.url) as source:
            said = source.read(1024).decode(errors="replace").partition(" ")[0].strip()
        if not _HASH.fullmatch(said):
            raise CorruptArtifactError(
                f"{self.url}.sha256: expected a SHA-256. Next: `aim-icl bank publish` writes it."
            )
        return said

    def load(self, digest: str, folder: Path, encoder: Encoder) -> DiskBank:
        """The bank with that hash, from below ``folder`` if it was loaded before.

        Raises:
            InputError: it cannot be read.
            ArtifactError: its content has another hash, or is no bank of this backbone, projector and format.
        """
        place = folder / self.name / digest[:16]
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=place.parent, prefix=".part-") as part:
                file = Path(part) / "file"
                found = hashlib.sha256()
                with _opened(self.url, "rb") as source, file.open("wb") as target:
                    while data := source.read(_CHUNK):
                        found.update(data)
                        target.write(data)
                if found.hexdigest() != digest:
                    raise CorruptArtifactError(f"{self.url}: its content is not what its hash says.")
                DemonstrationBank.import_file(file, Path(part) / "bank", encoder=encoder).close()
                (Path(part) / "bank").rename(place)
        return DemonstrationBank.open(place, encoder=encoder)


class Refreshing:
    """Keeps published banks as they are published.

    Args:
        banks: where they are used.
        published: addresses by name.
        folder: where they are kept.
        encoder: what they must fit.
        seconds: between two looks.
        linger: seconds that a replaced bank stays, for requests that have begun with it.
    """

    def __init__(
        self,
        banks: Banks,
        published: Mapping[str, str],
        folder: Path,
        encoder: Encoder,
        seconds: float,
        linger: float,
    ) -> None:
        self._banks, self._folder, self._encoder, self._seconds = banks, folder / FOLDER, encoder, seconds
        self._linger, self._replaced = linger, dict[Path, float]()
        self._published = [Published(name, url) for name, url in published.items()]
        self._held: dict[str, str] = {}
        self._said: dict[str, str] = {}
        self._stopped = threading.Event()
        for one in self._published:
            try:
                self._take(one)
            except Refusal as error:
                raise InputError(f"--published {one.name}={one.url}: {error} Next: another name.") from error
        self._tidy(0)  # nothing has begun yet
        self._thread = threading.Thread(target=self._watch, name="aim-published", daemon=True)
        if self._published:
            self._thread.start()

    def close(self) -> None:
        """Look no more."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def look(self) -> None:
        """Take what was published since; what cannot be taken leaves the old bank in place."""
        for one in self._published:
            try:
                self._take(one)
            except (AIMError, OSError) as error:
                if self._said.get(one.name) != str(error):  # once, and not at every look
                    log.warning("published bank %s stays as it was: %s", one.name, error)
                self._said[one.name] = str(error)
            else:
                self._said.pop(one.name, None)
        self._tidy(self._linger)

    def _take(self, one: Published) -> None:
        digest = one.digest()
        if self._held.get(one.name) == digest:
            return
        self._banks.use(one.name, one.load(digest, self._folder, self._encoder))
        self._held[one.name] = digest
        for place in (self._folder / one.name).iterdir():
            if place.name == digest[:16]:
                self._replaced.pop(place, None)
            else:
                self._replaced.setdefault(place, time.monotonic())

    def _tidy(self, linger: float) -> None:
        """Delete what was replaced so long ago."""
        old = [place for place, since in self._replaced.items() if time.monotonic() - since >= linger]
        for place in old:
            shutil.rmtree(place, ignore_errors=True)
            del self._replaced[place]

    def _watch(self) -> None:
        while not self._stopped.wait(self._seconds):
            self.look()


def _opened(url: str, mode: str, whole: str | None = None) -> BinaryIO:
    """A file of any file system; ``whole``: the bank that it belongs to."""
    try:
        opened: Any = fsspec.open(url, mode).open()
    except FileNotFoundError as error:
        raise ArtifactNotFoundError(
            f"{url}: there is no such file. Next: `aim-icl bank publish BANK {url}`."
        ) from error
    except ImportError as error:
        raise InputError(f"{url}: {error}") from error  # fsspec names the package to install
    except Exception as error:  # of any file system: they have no common base
        raise InputError(f"{url}: cannot be opened ({error or type(error).__name__}).") from error
    return cast(BinaryIO, opened)
