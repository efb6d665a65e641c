"""llama.cpp's tokenizer of a loaded model."""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Final

from aim_backends.llamacpp.library import Library
from aim_sdk.support.dependencies import imported

_CONTROL: Final = 1 << 3
_USER_DEFINED: Final = 1 << 4
"""Bits of a token's attributes, as in llama.h."""
_SENTINELS: Final = ("\x01", "\x02", "\x03", "\n")
"""One is put before each fragment, and cut off again."""


class Tokens:
    """Text to ids and back.

    Args:
        library: llama.cpp's functions.
        model: the loaded model.
        title: what messages call it.
    """

    def __init__(self, library: Library, model: int, title: str) -> None:
        self._library, self._vocab, self.title = library, library.llama_model_get_vocab(model), title

    def __len__(self) -> int:
        count: int = self._library.llama_vocab_n_tokens(self._vocab)
        return count

    @property
    def bos(self) -> str:
        """BOS as text; empty if there is none."""
        return self._text_of(self._library.llama_vocab_bos(self._vocab))

    @property
    def eos(self) -> str:
        """EOS as text; empty if there is none."""
        return self._text_of(self._library.llama_vocab_eos(self._vocab))

    @cached_property
    def opening_ids(self) -> list[int]:
        """BOS, if the model wants one."""
        adds = self._library.llama_vocab_get_add_bos(self._vocab)
        return [self._library.llama_vocab_bos(self._vocab)] if adds else []

    @cached_property
    def special_tokens(self) -> dict[int, str]:
        """Control and added tokens by id."""
        marked = _CONTROL | _USER_DEFINED
        attributes = self._library.llama_vocab_get_attr
        special = [token for token in range(len(self)) if attributes(self._vocab, token) & marked]
        return {token: self._text_of(token) for token in special}

    @cached_property
    def end_ids(self) -> frozenset[int]:
        """The tokens that end an answer."""
        return frozenset(n for n in range(len(self)) if self._library.llama_vocab_is_eog(self._vocab, n))

    @cached_property
    def token_bytes(self) -> Any:
        """The bytes of each token, for grammars."""
        library = imported("llguidance", extra="constrained")
        return library.LLTokenizer(library.TokenizerWrapper(_Vocabulary(self)))

    def tokenize(self, text: str) -> list[int]:
        """The ids of one fragment, without BOS; text that spells a special token becomes that token."""
        if not text:
            return []
        lead = self._tokenize(self._sentinel) if self._sentinel else []
        return self._tokenize(self._sentinel + text)[len(lead) :]

    @cached_property
    def _sentinel(self) -> str:
        """What keeps a fragment from being taken for the start of a text; empty where there is no difference.

        SentencePiece writes a blank before the first word of a text, which no fragment in the middle of a prompt has.
        """
        if not self.decode(self._tokenize("a")).startswith(" "):
            return ""
        pieces = [self.piece(token) for token in range(len(self))]
        longer = {piece[:1] for piece in pieces if len(piece) > 1}
        return next((mark for mark in _SENTINELS if mark.encode() not in longer), "")

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens left out."""
        return b"".join(self.piece(token) for token in ids).decode(errors="replace")

    def digest(self) -> str:
        """SHA-256 of all tokens' bytes and attributes."""
        total = hashlib.sha256()
        for token in range(len(self)):
            total.update(self.piece(token, special=True))
            total.update(f" {self._library.llama_vocab_get_attr(self._vocab, token)}\n".encode())
        return total.hexdigest()

    def _text_of(self, token: int) -> str:
        return "" if token < 0 else self.piece(token, special=True).decode(errors="replace")

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """The bytes of a token; of special ones only if they are wanted."""
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            count = self._library.llama_token_to_piece(self._vocab, token, buffer, size, 0, special)
            if count >= 0:
                return buffer.raw[:count]
            size = -count

    def _tokenize(self, text: str) -> list[int]:
        encoded = text.encode()
        ids = (ctypes.c_int32 * (len(encoded) + 8))()
        count = self._library.llama_tokenize(self._vocab, encoded, len(encoded), ids, len(ids), False, True)
        return list(ids[:count])


class _Vocabulary:
    """What llguidance asks of a tokenizer."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self.special_token_ids = list(tokens.special_tokens)
        self.tokens = [tokens.piece(token, special=token in tokens.special_tokens) for token in range(len(tokens))]
        self.eos_token_id = min(tokens.end_ids)
        self.bos_token_id = next(iter(tokens.opening_ids), None)

    def __call__(self, text: bytes | str) -> list[int]:
        return self._tokens.tokenize(text if isinstance(text, str) else text.decode(errors="replace"))
