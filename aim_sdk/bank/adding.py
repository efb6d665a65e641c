"""How demonstrations enter a bank: their keys, their readings, and what is kept."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence

import numpy as np

from aim_sdk.bank.binding import key_of
from aim_sdk.bank.store import NewEntry, Store
from aim_sdk.config import Binding
from aim_sdk.errors import InputError, UnknownEntryError
from aim_sdk.files.images import image_digest
from aim_sdk.reading.encoder import Encoded, Encoder
from aim_sdk.types import Demonstration, Metadata

POOLED = "reading"
"""The name of the pooled readings among the features."""

OnError = Callable[[Demonstration, InputError], None]
"""Called with each demonstration that cannot be read."""


class Adder:
    """Reads demonstrations into a store."""

    def __init__(self, store: Store, binding: Binding, encoder: Encoder) -> None:
        self._store, self._binding, self._encoder = store, binding, encoder
        self._end = 0
        self._before: int | None = None

    def window(
        self, items: Sequence[Demonstration], keys: list[str], batch_tokens: int, on_error: OnError | None
    ) -> Iterator[int]:
        """Add some demonstrations; yield how many are done, as they are, and append the keys of all."""
        digests = _digests(items, on_error)
        named = {place: key_of(self._binding, digest, items[place]) for place, digest in digests.items()}
        held = self._store.held(named.values())
        self._retag({key: items[place].metadata for place, key in named.items() if items[place].metadata}, held)
        first = {key: place for place, key in reversed(named.items()) if key not in held}  # of equal ones, the first
        places = sorted(first.values())
        yield len(items) - len(places)
        failed: set[str] = set()

        def report(index: int, error: InputError) -> None:
            failed.add(named[places[index]])
            if on_error:
                on_error(items[places[index]], error)

        positions = self._positions([named.get(place) for place in range(len(items))])
        for batch in self._encoder.stream(
            [items[place] for place in places],
            batch_tokens=batch_tokens,
            on_error=None if on_error is None else report,
        ):
            made = [(places[index], encoded) for index, encoded in batch]
            new = [(named[p], p, encoded) for p, encoded in made if named[p] in positions]  # others: added meanwhile
            self.keep([(key, positions[key], digests[p], items[p], encoded) for key, p, encoded in new])
            yield len(batch)
        yield len(failed)
        keys += [key for key in named.values() if key not in failed]

    def replace(self, key: str, demonstration: Demonstration) -> str:
        """Replace a demonstration by another one at the same position."""
        digest = image_digest(demonstration.image)
        new = key_of(self._binding, digest, demonstration)
        if new == key:
            self._store.tag({key: demonstration.metadata})
            return key
        if self._store.held([new]):
            raise InputError(f"the demonstration is in the bank already, as {new}; remove {key} instead.")
        ((_, encoded),) = next(self._encoder.stream([demonstration]))
        place = self._store.positions([key])
        if key not in place:  # it was removed in the meantime
            raise UnknownEntryError(f"the bank holds no demonstration {key!r} any more.")
        self.keep([(new, place[key], digest, demonstration, encoded)], remove=[key])
        return new

    def project(self, source: Store, keys: Sequence[str]) -> None:
        """Take demonstrations of a store that keeps readings."""
        taken = [(source.digest(key), source.demonstration(key), source.reading(key)) for key in keys]
        named = {
            key_of(self._binding, digest, item): (digest, item, reading)
            for digest, item, reading in taken
            if reading is not None
        }
        held, start = self._store.held(named), self._store.next_position()
        new = [(key, *rest) for key, rest in named.items() if key not in held]
        if new:
            fused = self._encoder.project([reading for *_, reading in new])
            self.keep(
                [
                    (key, start + place, digest, item, Encoded(reading, tokens))
                    for place, ((key, digest, item, reading), tokens) in enumerate(zip(new, fused, strict=True))
                ]
            )

    def keep(self, made: Sequence[tuple[str, int, str, Demonstration, Encoded]], *, remove: Sequence[str] = ()) -> None:
        """Hand (key, position, digest, demonstration, encoded) to the store, with the pooled readings."""
        entries = [
            NewEntry(key, position, digest, item, encoded.fused, encoded.reading)
            for key, position, digest, item, encoded in made
        ]
        if entries:
            pooled = np.stack([self._encoder.pooled(encoded.reading) for *_, encoded in made])
            self._store.add(entries, remove=remove, features={POOLED: pooled})

    def _positions(self, keys: Sequence[str | None]) -> dict[str, int]:
        """Where those stand that are not here yet, by key: in the order in which they are given.

        A call that was interrupted, or met one that could not be read (None, where not even its key is known), has left
        free what its missing ones were to take. They take it when they are given again next to the same ones; all
        others come after the last.
        """
        here = self._store.positions(key for key in keys if key)
        around = [*here.values(), *([] if self._before is None else [self._before])]
        near = len(keys) + 1
        used = self._store.used_positions(min(around, default=0) - near, max(around, default=0) + near)
        end = max(self._end, self._store.next_position())
        found: dict[str, int] = {}
        before = self._before
        for place, key in enumerate(keys):
            if key in here or key in found:
                before = here[key] if key in here else found[key]
                continue
            if before is None:  # the first ones: right before the first that is here
                missing, after = _run(keys[place:], here)
                before = None if after is None else here[after] - missing - 1
            wanted = -1 if before is None else before + 1
            if 0 <= wanted < end and wanted not in used:
                before = wanted
            else:
                before, end = end, end + 1
            used.add(before)
            if key is not None:
                found[key] = before
        self._end, self._before = end, before
        return found

    def _retag(self, given: Mapping[str, Metadata], held: Mapping[str, Metadata]) -> None:
        changed = {key: fields for key, fields in given.items() if key in held and held[key] != fields}
        if changed:
            self._store.tag(changed)


def gave_nothing(name: str, given: object) -> InputError:
    """What an iterator without any item is refused with: it was probably consumed before."""
    return InputError(
        f"{name}: the {type(given).__name__} gave nothing; was it consumed before?\n"
        "Next: pass a list, which can be read again."
    )


def check_on_error(on_error: object) -> None:
    """Refuse what cannot be called, before it is needed.

    Raises:
        InputError: it says what is expected.
    """
    if on_error is not None and not callable(on_error):
        raise InputError(
            f"on_error: {type(on_error).__name__}; expected a function of what cannot be used and its error, or None."
        )


def _run(keys: Sequence[str | None], here: Container[str | None]) -> tuple[int, str | None]:
    """How many keys stand before the first that is here, and that one."""
    for count, key in enumerate(keys):
        if key in here:
            return count, key
    return len(keys), None


def _digests(items: Sequence[Demonstration], on_error: OnError | None) -> dict[int, str]:
    digests: dict[int, str] = {}
    for place, item in enumerate(items):
        if not isinstance(item, Demonstration):
            raise InputError(f"bank.add: expected Demonstration objects, got {type(item).__name__}.")
        try:
            digests[place] = image_digest(item.image)
        except InputError as error:
            if on_error is None:
                raise
            on_error(item, error)
    return digests
