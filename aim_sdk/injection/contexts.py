"""What stands before each query: which demonstrations, and what is made of them in each mode."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import TypeAlias

from aim_sdk.bank import BankEntry, DemonstrationBank
from aim_sdk.errors import FormatError, InputError, ShotsError, did_you_mean
from aim_sdk.injection.given import Demonstrations, demonstrations_of, first_shots, shots_of
from aim_sdk.injection.label_notes import bank_answers, note_one_answer, one_answer
from aim_sdk.reading.encoder import Encoder
from aim_sdk.selection.base import Selector
from aim_sdk.selection.builtin import FirstSelector
from aim_sdk.types import Context, Demonstration, FusedTokens, Mode, Query

MODES: tuple[Mode, ...] = ("aim", "text-only", "interleaved", "zero-shot", "no-image", "nearest")
READ_BATCH = 16
"""Demonstrations a forward, where a call brings its own."""

Shown: TypeAlias = Demonstration | BankEntry


class Contexts:
    """Makes the contexts of one pipeline's queries."""

    def __init__(self, encoder: Encoder, bank: DemonstrationBank, *, labels: bool = False) -> None:
        self.encoder, self.bank, self.backend = encoder, bank, encoder.backend
        self._fewest, self._noted = 1 if labels else 2, False
        """Demonstrations of one answer that are worth a note, and whether it was made."""

    def contexts(
        self,
        queries: Sequence[Query],
        shots: int | None,
        demonstrations: Demonstrations | None,
        mode: Mode,
        selector: Selector,
    ) -> list[Context]:
        """Return what stands before each query; see [`AIMPipeline`][aim_sdk.pipeline.AIMPipeline] for the arguments."""
        return [context for context, _ in self.named(queries, shots, demonstrations, mode, selector)]

    def named(
        self,
        queries: Sequence[Query],
        shots: int | None,
        demonstrations: Demonstrations | None,
        mode: Mode,
        selector: Selector,
    ) -> list[tuple[Context, tuple[str, ...]]]:
        """Like `contexts`, each with the keys of what it shows: `Generation.demonstrations`."""
        check_mode(mode)
        if mode == "nearest":
            raise InputError("mode 'nearest' has no prompt: the demonstrations vote.")
        shots = shots_of(shots)
        if mode == "zero-shot":
            chosen: list[list[Shown]] = [[]] * len(queries)
        elif demonstrations is not None:
            given = demonstrations_of(demonstrations, len(queries))
            chosen = first_shots([[self._ours(item) for item in items] for items in given], shots)
            if all(items is given[0] for items in given):
                self._note(chosen, lambda: {_demonstration(item).answer.strip() for item in given[0]})
        else:
            if shots is None and not len(self.bank):
                raise nothing_to_show(self.bank, mode)
            chosen = self._selected(queries, shots, selector)
            if isinstance(selector, FirstSelector):
                self._note(chosen, lambda: bank_answers(self.bank))
        if self.encoder.prompt_format.kind == "chat":
            for query, items in zip(queries, chosen, strict=True):
                if not items and not query.text.strip():
                    raise InputError("the query has no text and no demonstrations: nothing says what is asked.")
        if mode == "interleaved":
            if not self.backend.supports_interleaved and any(chosen):
                raise FormatError(
                    f"backend {self.backend.name!r} takes one image per prompt: mode='interleaved' cannot run on it."
                )
            keys = {id(item): self._key(item) for items in chosen for item in items}
            found = {id(item): _checked(item) for items in chosen for item in items}
            return [([found[id(i)] for i in items], tuple(keys[id(i)] for i in items)) for items in chosen]
        identity: Callable[[Shown], object] = id if mode == "aim" else _texts
        unique = {identity(item): item for items in chosen for item in items}
        fused = dict(zip(unique, self._fuse(list(unique.values()), mode), strict=True))
        contexts = [[fused[identity(item)] for item in items] for items in chosen]
        return [
            (context, tuple(self._key(item, tokens) for item, tokens in zip(items, context, strict=True)))
            for items, context in zip(chosen, contexts, strict=True)
        ]

    def _note(self, chosen: Sequence[Sequence[Shown]], held: Callable[[], Collection[str]]) -> None:
        """Note once that all queries are shown one answer, where they are shown the same."""
        if self._noted or not chosen or len(chosen[0]) < self._fewest:
            return
        answer = one_answer([_demonstration(item).answer for items in chosen for item in items])
        if answer is not None and len(held()) > 1:
            self._noted = True
            note_one_answer(len(chosen[0]), answer)

    def _key(self, item: Shown, tokens: FusedTokens | None = None) -> str:
        """The key of a demonstration that is shown; of one that is not the bank's, its tokens' own."""
        if isinstance(item, BankEntry):
            return item.key
        return self.bank.key(item) if tokens is None or tokens.key is None else tokens.key

    def _ours(self, item: Shown) -> Shown:
        """An entry of another bank is its demonstration: its fused tokens may be another projector's."""
        if not isinstance(item, BankEntry):
            return item
        return self.bank.get(item.key) or item.checked()

    def _selected(self, queries: Sequence[Query], shots: int | None, selector: Selector) -> list[list[Shown]]:
        chosen = selector.select(self.bank, queries, shots)
        entries = {key: self.bank[key] for keys in chosen for key in keys}
        return [[entries[key] for key in keys] for keys in chosen]

    def _fuse(self, shown: list[Shown], mode: Mode) -> list[FusedTokens]:
        if mode != "aim":
            return self._encoded([_demonstration(item) for item in shown], mode)
        keys = [item.key if isinstance(item, BankEntry) else self.bank.key(item) for item in shown]
        banked = [
            item if isinstance(item, BankEntry) else self.bank.get(key) for item, key in zip(shown, keys, strict=True)
        ]
        missing = {
            key: _demonstration(item) for key, item, entry in zip(keys, shown, banked, strict=True) if entry is None
        }
        made = dict(zip(missing, self._encoded(list(missing.values()), mode), strict=True))
        return [
            replace(made[key], key=key) if entry is None else entry.fused
            for key, entry in zip(keys, banked, strict=True)
        ]

    def _encoded(self, demonstrations: list[Demonstration], mode: Mode) -> list[FusedTokens]:
        batches = [demonstrations[start : start + READ_BATCH] for start in range(0, len(demonstrations), READ_BATCH)]
        if mode == "text-only":
            reader = self.backend.reader
            made = [t for batch in batches for t in reader.text_only(batch, prompt_format=self.encoder.prompt_format)]
        else:
            with_images = mode != "no-image"
            made = [t for batch in batches for t in self.encoder.encode(batch, with_images=with_images)]
        if mode == "aim":  # keyed by their images, too
            return made
        return [
            replace(tokens, key=text_key(item, mode, self.encoder.binding.scope))
            for tokens, item in zip(made, demonstrations, strict=True)
        ]


def text_key(demonstration: Demonstration, mode: Mode, scope: str) -> str:
    """Names the tokens of a demonstration whose image is not looked at."""
    return hashlib.sha256(repr([mode, *_texts(demonstration), scope]).encode()).hexdigest()


def check_mode(mode: Mode) -> None:
    """Refuse what is no mode.

    Raises:
        InputError: it names the modes.
    """
    if mode not in MODES:
        raise InputError(f"unknown mode {mode!r}.{did_you_mean(str(mode), MODES)} Expected one of: {', '.join(MODES)}.")


def nothing_to_show(bank: DemonstrationBank, mode: Mode) -> ShotsError:
    """What a mode that shows demonstrations says where there are none."""
    where = "the bank" if bank.path is None else f"the bank {bank.path}"
    return ShotsError(
        f"{where} holds no demonstrations, and mode {mode!r} shows some.\n"
        "Next: `pipe.bank.add([...])`, demonstrations=[...], another bank, or mode='zero-shot'."
    )


def _demonstration(item: Shown) -> Demonstration:
    return item.demonstration if isinstance(item, BankEntry) else item


def _checked(item: Shown) -> Demonstration:
    """With the image that was read, where it is looked at again."""
    return item.checked() if isinstance(item, BankEntry) else item


def _texts(item: Shown) -> tuple[str, str]:
    """What tells demonstrations apart where their images are not looked at."""
    demonstration = _demonstration(item)
    return demonstration.text, demonstration.answer
