"""The entries of a bank in order, while others may remove some."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping, ValuesView

from aim_sdk.bank.entry import BankEntry


class ItemsInOrder(ItemsView[str, BankEntry]):
    """Keys and entries of a bank that may lose some meanwhile."""

    _mapping: Mapping[str, BankEntry]

    def __iter__(self) -> Iterator[tuple[str, BankEntry]]:
        return ((entry.key, entry) for entry in self._mapping.values())


class EntriesInOrder(ValuesView[BankEntry]):
    """Entries of a bank that may lose some in the meantime."""

    _mapping: Mapping[str, BankEntry]

    def __iter__(self) -> Iterator[BankEntry]:
        for key in self._mapping:
            if (entry := self._mapping.get(key)) is not None:
                yield entry
