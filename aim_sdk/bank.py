"""The Demonstration Bank: demonstrations are read once, their fused tokens kept and reused."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from aim_sdk.errors import InputError, ShotsError
from aim_sdk.images import image_digest
from aim_sdk.types import Demonstration, FusedTokens

Encode = Callable[[Sequence[Demonstration]], list[FusedTokens]]


@dataclass(frozen=True, slots=True)
class BankEntry:
    """A demonstration, its content key, and the fused tokens that stand for it."""

    key: str
    demonstration: Demonstration
    fused: FusedTokens


class DemonstrationBank:
    """Keeps entries in the order they were added; adding the same demonstration again reads nothing.

    Args:
        encode: reads and projects a batch of demonstrations.
        scope: what else the fused tokens depend on (backbone, projector, prompt format); part of every key.
    """

    def __init__(self, encode: Encode, scope: str) -> None:
        self._encode, self._scope = encode, scope
        self._entries: dict[str, BankEntry] = {}
        self._lock = threading.RLock()

    def key(self, demonstration: Demonstration) -> str:
        """The content key: a SHA-256 over image content, text, answer and the bank's scope."""
        parts = [image_digest(demonstration.image), demonstration.text, demonstration.answer, self._scope]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def add(self, demonstrations: Iterable[Demonstration], *, batch_size: int = 8, progress: bool = False) -> list[str]:
        """Read the demonstrations that are not here yet and return the key of each one given.

        Every batch is kept as soon as it is read: an interruption loses at most the batch in flight.

        Raises:
            InputError: something else than demonstrations was given.
            ImageError: an image cannot be decoded; the batches before it are kept.
        """
        given = list(demonstrations)
        for item in given:
            if not isinstance(item, Demonstration):
                raise InputError(f"bank.add: expected Demonstration objects, got {type(item).__name__}.")
        keys = [self.key(item) for item in given]
        with self._lock:
            missing = {key: item for key, item in zip(keys, given, strict=True) if key not in self._entries}
            for batch in _batches(list(missing.items()), batch_size, progress):
                fused = self._encode([item for _, item in batch])
                for (key, item), tokens in zip(batch, fused, strict=True):
                    self._entries[key] = BankEntry(key, item, tokens)
        return keys

    def remove(self, key: str) -> None:
        """Forget one entry.

        Raises:
            KeyError: no entry has that key.
        """
        with self._lock:
            del self._entries[key]

    def first(self, shots: int) -> list[BankEntry]:
        """The ``shots`` entries that were added first.

        Raises:
            ShotsError: the bank holds fewer.
        """
        with self._lock:
            if shots > len(self._entries):
                raise ShotsError(
                    f"{shots} shots asked for, but the bank holds {len(self._entries)} demonstrations. "
                    "Add more with `pipe.bank.add([...])`, or pass a smaller `shots`."
                )
            return list(self._entries.values())[:shots]

    def get(self, key: str) -> BankEntry | None:
        """The entry with that key, if it is here."""
        return self._entries.get(key)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[BankEntry]:
        with self._lock:
            return iter(list(self._entries.values()))

    def __contains__(self, demonstration: Demonstration) -> bool:
        return self.key(demonstration) in self._entries


def _batches(
    items: list[tuple[str, Demonstration]], size: int, progress: bool
) -> Iterable[list[tuple[str, Demonstration]]]:
    batches = [items[start : start + size] for start in range(0, len(items), size)]
    if not progress or not batches:
        return batches
    from rich.progress import track

    return track(batches, description="reading demonstrations")
