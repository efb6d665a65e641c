"""What prompts need of a language model: its tokenizer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class TextModel(Protocol):
    """Text to ids, and back."""

    @property
    def title(self) -> str:
        """What messages call it."""

    @property
    def opening_ids(self) -> list[int]:
        """What every prompt begins with."""

    @property
    def special_tokens(self) -> Mapping[int, str]:
        """Tokens that no text of a user may hold, by id."""

    @property
    def end_ids(self) -> frozenset[int]:
        """The tokens that end an answer."""

    @property
    def token_bytes(self) -> Any:
        """The bytes of each token, for grammars."""

    @abstractmethod
    def tokenize(self, text: str) -> list[int]:
        """The ids of one segment, without special tokens around it."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens left out."""
