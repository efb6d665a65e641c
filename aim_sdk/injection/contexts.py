"""The contexts of queries: which demonstrations they are shown, and how each mode shows them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import TypeAlias

from aim_sdk.backend.capabilities import Interleaves, capability
from aim_sdk.backend.interfaces import Backend
from aim_sdk.bank import BankEntry, DemonstrationBank
from aim_sdk.errors import InputError, ShotsError
from aim_sdk.injection.given import Shown, first_shots, of_each_query
from aim_sdk.injection.label_notes import bank_answers, note_one_answer, one_answer
from aim_sdk.injection.shots import Shots
from aim_sdk.reading.encoder import Encoder
from aim_sdk.selection.base import Selector, chosen
from aim_sdk.selection.builtin import FirstSelector
from aim_sdk.types import Context, Demonstration, FusedTokens, Mode, Query

READ_BATCH = 16
"""Demonstrations per forward, if a call brings its own."""

NamedContext: TypeAlias = tuple[Context, tuple[str, ...]]
"""What comes before a query, and the keys of what it shows: `Generation.demonstrations`."""


class Contexts:
    """Makes the contexts of one pipeline's queries.

    Args:
        encoder: reads what is not banked.
        bank: where demonstrations are chosen.
        selector: chooses them, if `Shots` names no other one.
        labels: whether queries are labelled: then one demonstration is enough for the note that all say the same.
    """

    def __init__(self, encoder: Encoder, bank: DemonstrationBank, selector: Selector, *, labels: bool = False) -> None:
        self.encoder, self.bank, self.selector = encoder, bank, selector
        self.backend: Backend = encoder.backend
        self._fewest, self._noted = 1 if labels else 2, False
        """Demonstrations of one answer that are worth a note, and whether it was made."""

    def of(self, queries: Sequence[Query], shots: Shots) -> list[NamedContext]:
        """Return the context of each query.

        Raises:
            ShotsError: there are fewer demonstrations, or none.
            CapabilityError: this backbone cannot be asked in that mode.
            InputError: a query has nothing to ask, or a demonstration cannot be read.
        """
        mode = shots.mode
        if mode == "nearest":
            raise InputError("mode 'nearest' has no prompt: the demonstrations vote.")
        selected = self._chosen(queries, shots)
        if self.encoder.prompt_format.kind == "chat":
            for query, items in zip(queries, selected, strict=True):
                if not items and not query.text.strip():
                    raise InputError("the query has no text and no demonstrations: nothing says what is asked.")
        if mode == "interleaved":
            if any(selected):
                _check_images(self.backend, 1 + max(map(len, selected)))
            keys = {id(item): self._key(item) for items in selected for item in items}
            found = {id(item): _checked(item) for items in selected for item in items}
            return [([found[id(i)] for i in items], tuple(keys[id(i)] for i in items)) for items in selected]
        identity: Callable[[Shown], object] = id if mode == "aim" else _texts
        unique = {identity(item): item for items in selected for item in items}
        fused = dict(zip(unique, self._fuse(list(unique.values()), mode), strict=True))
        contexts = [[fused[identity(item)] for item in items] for items in selected]
        return [
            (context, tuple(self._key(item, tokens) for item, tokens in zip(items, context, strict=True)))
            for items, context in zip(selected, contexts, strict=True)
        ]

    def _chosen(self, queries: Sequence[Query], shots: Shots) -> list[list[Shown]]:
        if shots.mode == "zero-shot":
            return [[] for _ in queries]
        if shots.demonstrations is not None:
            given = of_each_query(shots.demonstrations, len(queries))
            selected = first_shots([[self._ours(item) for item in items] for items in given], shots.count)
            if all(items is given[0] for items in given):
                self._note(selected, lambda: {_demonstration(item).answer.strip() for item in given[0]}, given=True)
            return selected
        if shots.count is None and not len(self.bank):
            raise nothing_to_show(self.bank, shots.mode)
        selector = shots.selector or self.selector
        found: list[list[Shown]] = [[*entries] for entries in chosen(self.bank, selector, queries, shots.count)]
        if isinstance(selector, FirstSelector):
            self._note(found, lambda: bank_answers(self.bank), given=False)
        return found

    def _note(self, shown: Sequence[Sequence[Shown]], held: Callable[[], Collection[str]], *, given: bool) -> None:
        """Warn once if all queries are shown the same demonstrations and these have one answer."""
        if self._noted or not shown or len(shown[0]) < self._fewest:
            return
        answer = one_answer([_demonstration(item).answer for items in shown for item in items])
        if answer is not None and len(held()) > 1:
            self._noted = True
            note_one_answer(len(shown[0]), answer, given=given)

    def _key(self, item: Shown, tokens: FusedTokens | None = None) -> str:
        """The key of a shown demonstration; for one from outside the bank, the key of its tokens."""
        if isinstance(item, BankEntry):
            return item.key
        return self.bank.key(item) if tokens is None or tokens.key is None else tokens.key

    def _ours(self, item: Shown) -> Shown:
        """Take only the demonstration of another bank's entry: its fused tokens may be another projector's."""
        if not isinstance(item, BankEntry):
            return item
        return self.bank.get(item.key) or item.checked()

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
    """The key of a demonstration whose image is not used."""
    return hashlib.sha256(repr([mode, *_texts(demonstration), scope]).encode()).hexdigest()


def nothing_to_show(bank: DemonstrationBank, mode: Mode) -> ShotsError:
    """The error of a mode that shows demonstrations if there are none."""
    where = "the bank" if bank.path is None else f"the bank {bank.path}"
    return ShotsError(
        f"{where} holds no demonstrations, and mode {mode!r} shows some.\n"
        "Next: `pipe.bank.add([...])`, demonstrations=[...], another bank, or mode='zero-shot'."
    )


def _check_images(backend: Backend, images: int) -> None:
    """Refuse more images than one prompt may hold."""
    most = capability(backend, Interleaves).most_images
    if most is not None and images > most:
        raise ShotsError(
            f"a prompt of backend {backend.name!r} holds {most} images, the query's too; {images} were asked for.\n"
            f"Next: use shots={most - 1}, or another mode."
        )


def _demonstration(item: Shown) -> Demonstration:
    return item.demonstration if isinstance(item, BankEntry) else item


def _checked(item: Shown) -> Demonstration:
    """The demonstration with the image that was read, if the image is needed again."""
    return item.checked() if isinstance(item, BankEntry) else item


def _texts(item: Shown) -> tuple[str, str]:
    """What identifies demonstrations if their images are not used."""
    demonstration = _demonstration(item)
    return demonstration.text, demonstration.answer
