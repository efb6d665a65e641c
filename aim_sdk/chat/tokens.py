"""Fused tokens of the demonstrations that conversations bring, kept by content: the same pair is read once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from aim_sdk.bank.binding import key_of
from aim_sdk.bank.entry import BankEntry
from aim_sdk.files.images import image_digest
from aim_sdk.injection.contexts import READ_BATCH
from aim_sdk.reading.encoder import Encoder
from aim_sdk.types import Demonstration, FusedTokens

CAPACITY: Final = 1 << 28
"""Bytes of fused tokens that are kept; the least recently used ones leave."""


class KeptTokens:
    """Keeps what was read; thread-safe. The key holds the prompt format: another system message reads again."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity, self._bytes = capacity, 0
        self._kept: OrderedDict[str, FusedTokens] = OrderedDict()
        self._lock = threading.Lock()

    def of(
        self, encoder: Encoder, conversations: Sequence[Sequence[Demonstration]], bank: Mapping[str, BankEntry]
    ) -> list[tuple[list[FusedTokens], int]]:
        """The fused tokens of each conversation's demonstrations, and how many of them had to be read for it.

        What another conversation of the same call brings, too, is read for the first of them.

        Raises:
            InputError: one cannot be read.
        """
        keys = [[key_of(encoder.binding, image_digest(item.image), item) for item in items] for items in conversations]
        everything = {
            key: item
            for row, items in zip(keys, conversations, strict=True)
            for key, item in zip(row, items, strict=True)
        }
        found = {key: entry.fused for key in everything if (entry := bank.get(key)) is not None}
        with self._lock:
            for key in everything:
                if key in self._kept and key not in found:
                    self._kept.move_to_end(key)
                    found[key] = self._kept[key]
        missing = [key for key in everything if key not in found]
        for start in range(0, len(missing), READ_BATCH):
            batch = missing[start : start + READ_BATCH]
            for key, tokens in zip(batch, encoder.encode([everything[key] for key in batch]), strict=True):
                found[key] = replace(tokens, key=key)
        with self._lock:
            for key in missing:
                self._keep(key, found[key])
        unread, made = set(missing), []
        for row in keys:
            made.append(([found[key] for key in row], len(unread.intersection(row))))
            unread.difference_update(row)
        return made

    def _keep(self, key: str, tokens: FusedTokens) -> None:
        if key not in self._kept:
            self._bytes += tokens.embeddings.nbytes
        self._kept[key] = tokens
        while self._bytes > self._capacity and len(self._kept) > 1:
            _, gone = self._kept.popitem(last=False)
            self._bytes -= gone.embeddings.nbytes
