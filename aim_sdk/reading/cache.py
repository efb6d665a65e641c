"""Readings on disk: the backbone is frozen, so a demonstration that was read once is never read again."""

from __future__ import annotations

from pathlib import Path

from aim_sdk.files.record_cache import RecordCache
from aim_sdk.reading.encoder import Encoder
from aim_sdk.types import KeptReading


class ReadingCache:
    """Readings by the demonstration's id, in files that a crash cannot spoil (`RecordCache`); thread-safe.

    Args:
        folder: where the files are; created if missing.
        encoder: the backbone, format and layers that the readings are of.
        limit: bytes that this process may write.
        rank: which of the processes.
    """

    def __init__(self, folder: Path, encoder: Encoder, *, limit: float, rank: int = 0) -> None:
        self._records = RecordCache(folder, "readings", encoder.scope, limit=limit, rank=rank)

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, key: object) -> bool:
        return key in self._records

    def get(self, key: str) -> KeptReading | None:
        """The reading of a demonstration, on the CPU; None if there is none."""
        if (found := self._records.get(key, ["hidden", "token_ids"])) is None:
            return None
        header, (hidden, token_ids) = found
        return KeptReading(token_ids, hidden, header["image_position"], header["answer_start"])

    def add(self, key: str, reading: KeptReading) -> None:
        """Keep a reading, while there is room."""
        header = {"image_position": reading.image_position, "answer_start": reading.answer_start}
        self._records.add(key, header, {"hidden": reading.hidden, "token_ids": reading.token_ids})

    def close(self) -> None:
        """Close the files; nothing more is kept."""
        self._records.close()
