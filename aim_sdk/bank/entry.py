"""One demonstration of a bank."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import NoReturn

from aim_sdk.errors import InputError
from aim_sdk.types import Demonstration, FusedTokens


@dataclass(frozen=True)
class BankEntry:
    """A demonstration, its content key, and the fused tokens that stand for it (loaded when they are first used)."""

    key: str
    demonstration: Demonstration
    _load: Callable[[], FusedTokens] = field(repr=False, compare=False)
    _check: Callable[[], Demonstration] = field(repr=False, compare=False)

    @cached_property
    def fused(self) -> FusedTokens:
        """The fused tokens, on the backbone's device if there is one."""
        return self._load()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise InputError("an entry belongs to an open bank and cannot be copied or pickled; pass entry.demonstration.")

    def checked(self) -> Demonstration:
        """The demonstration, after checking that its image is the one that was read.

        Raises:
            ImageError: the file is missing, or holds a different image.
        """
        return self._check()
