"""A bank that several processes read for: each keeps its part in a folder next to it, and one puts them together.

The processes share nothing while they read. At the end one adds all demonstrations in their order, as a single process
would, but takes the readings of the parts instead of reading: so order, keys and metadata are a single process's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from aim_sdk.bank.bank import DemonstrationBank, DiskBank
from aim_sdk.errors import InputError
from aim_sdk.reading.encoder import BATCH_TOKENS, Encoded, Encoder, OnError
from aim_sdk.types import Demonstration

_TAKEN: Final = 256
"""Entries that are taken together."""


def part_folder(bank: Path, rank: int) -> Path:
    """The folder of one process's part."""
    return bank.with_name(f"{bank.name}.part-{rank}")


def part_folders(bank: Path) -> list[Path]:
    """The folders of all parts that are there, those of an interrupted call, too."""
    return sorted(bank.parent.glob(f"{bank.name}.part-*"))


class Parts:
    """The parts that are there, open for reading."""

    def __init__(self, bank: Path, encoder: Encoder, stack: ExitStack) -> None:
        self._banks = [
            stack.enter_context(DemonstrationBank.open(folder, encoder=encoder)) for folder in part_folders(bank)
        ]

    def find(self, item: Demonstration) -> tuple[DiskBank, str] | None:
        """The part that has a demonstration, and its key.

        Raises:
            InputError: its image cannot be read.
        """
        if not self._banks:
            return None
        key = self._banks[0].key(item)
        return next(((bank, key) for bank in self._banks if key in bank), None)


class FromParts(Encoder):
    """An encoder that takes what the parts have, and reads the rest."""

    def __init__(self, encoder: Encoder, parts: Parts) -> None:
        super().__init__(encoder.backend, encoder.projector, encoder.prompt_format)
        self._parts = parts

    def stream(
        self,
        demonstrations: Sequence[Demonstration],
        *,
        batch_tokens: int = BATCH_TOKENS,
        on_error: OnError | None = None,
    ) -> Iterator[list[tuple[int, Encoded]]]:
        """See `Encoder.stream`."""
        found, rest = list[tuple[int, DiskBank, str]](), list[int]()
        for place, item in enumerate(demonstrations):
            part = self._found(item)
            if part is None:
                rest.append(place)
            else:
                found.append((place, *part))
        for start in range(0, len(found), _TAKEN):
            yield [(place, bank.encoded(key)) for place, bank, key in found[start : start + _TAKEN]]
        if rest:
            refused = None if on_error is None else (lambda index, error: on_error(rest[index], error))
            left = [demonstrations[place] for place in rest]
            for read in super().stream(left, batch_tokens=batch_tokens, on_error=refused):
                yield [(rest[index], encoded) for index, encoded in read]

    def _found(self, item: Demonstration) -> tuple[DiskBank, str] | None:
        try:
            return self._parts.find(item)
        except InputError:  # reading says so
            return None
