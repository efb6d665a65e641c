"""Converts what callers pass to lists of values, whatever container they came in.

An iterator is consumed once, here. An empty one is refused: it was probably consumed before.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence, Sized
from typing import Any, TypeAlias, TypeVar

from aim_sdk.bank.adding import gave_nothing
from aim_sdk.bank.entry import BankEntry
from aim_sdk.config import PromptFormat
from aim_sdk.errors import InputError, ShotsError, unknown
from aim_sdk.support.numbers import whole_number
from aim_sdk.types import MODES, Demonstration, ImageInput, Query, is_image

T = TypeVar("T")

Queries: TypeAlias = "Query | ImageInput | Iterable[Query | ImageInput | tuple[ImageInput, str]]"
"""One or several: queries, images without a text, or pairs of an image and a text."""

One: TypeAlias = "Query | ImageInput | tuple[ImageInput, str]"
"""One query: a `Query`, an image without a text, or a pair of an image and its text."""

Demonstrations: TypeAlias = (
    "Demonstration | Iterable[Demonstration | BankEntry] | Iterable[Iterable[Demonstration | BankEntry]]"
)
"""The same ones for all queries, or some for each query."""

Shown: TypeAlias = Demonstration | BankEntry
Given: TypeAlias = "tuple[Shown, ...] | tuple[tuple[Shown, ...], ...]"
"""The same, checked, and readable any number of times."""


def shots_of(shots: object) -> int | None:
    """A number of shots; None if none is given.

    Raises:
        InputError: something else.
    """
    try:
        return None if shots is None else whole_number("shots", shots, 0)
    except InputError as error:
        raise InputError(f"{str(error).removesuffix('.')}, or None for the default.") from None


def queries_of(given: object) -> list[Query]:
    """Queries out of one or several (`Queries`).

    Raises:
        InputError: something is not a query.
    """
    if isinstance(given, Query) or is_image(given):
        return [_query(given, "")]
    if isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], str) and not os.path.exists(given[1]):
        raise InputError(f"queries: {given[1][:40]!r} is not a file; one image with its text is [(image, text)].")
    return [_query(item, f" {place}") for place, item in enumerate(_listed(given, "queries", "Query objects"))]


def query_of(given: object, text: str = "") -> Query:
    """One query: a `Query`, an image with its text, or the two as a pair.

    Raises:
        InputError: it is something else, or there are two texts.
    """
    made = _query(given, "")
    if not text:
        return made
    if not is_image(given):
        raise InputError("two texts: the query brings its own; leave the second argument out.")
    return Query(made.image, text)


def given_demonstrations(given: object) -> Given:
    """Demonstrations from one, several, or some for each query, readable any number of times.

    Raises:
        InputError: something is not a demonstration, or an iterator gave nothing.
    """
    if isinstance(given, Demonstration | BankEntry):
        return (given,)
    items = _listed(given, "demonstrations", "Demonstration objects")
    if all(isinstance(item, Demonstration | BankEntry) for item in items):
        return tuple(items)
    expected = "a Demonstration, or for each query some"
    if any(isinstance(item, Demonstration | BankEntry) for item in items):
        other = next(item for item in items if not isinstance(item, Demonstration | BankEntry))
        raise InputError(f"demonstrations: Demonstration objects and {_kind(other)}; expected {expected}, not both.")
    chosen: list[tuple[Shown, ...]] = []
    for place, item in enumerate(items):
        name = f"demonstrations of query {place}"
        shown = _listed(item, name, "Demonstration objects")
        for one in shown:
            if not isinstance(one, Demonstration | BankEntry):
                raise InputError(f"{name}: {_kind(one)}; expected Demonstration objects.")
        chosen.append(tuple(shown))
    return tuple(chosen)


def each_given(given: Given) -> list[Demonstration]:
    """All demonstrations that were given, for whichever query."""
    listed = [one for item in given for one in (item if isinstance(item, tuple) else (item,))]
    return [one.demonstration if isinstance(one, BankEntry) else one for one in listed]


def of_each_query(given: Given, queries: int) -> list[list[Shown]]:
    """The demonstrations of each of ``queries`` queries.

    Raises:
        InputError: they are for a different number of queries.
    """
    if all(isinstance(item, Demonstration | BankEntry) for item in given):
        same: list[Shown] = list(given)  # type: ignore[arg-type]
        return [same] * queries
    if len(given) != queries:
        raise InputError(f"{queries} queries, but demonstrations for {len(given)} of them.")
    return [list(items) for items in given]  # type: ignore[arg-type]


def check_mode(mode: object) -> None:
    """Refuse an unknown mode.

    Raises:
        InputError: it names the modes.
    """
    if mode not in MODES:
        raise InputError(unknown("mode", mode, MODES))


def first_shots(chosen: Sequence[Sequence[T]], shots: int | None) -> list[list[T]]:
    """The first ``shots`` of each query's demonstrations; None for all.

    Raises:
        ShotsError: a query has fewer.
    """
    fewest = min(map(len, chosen), default=0)
    if chosen and shots is not None and shots > fewest:
        raise ShotsError(f"{shots} shots asked for, but only {fewest} demonstrations were given.")
    return [list(items[:shots]) for items in chosen]


def candidates_of(given: object) -> list[str]:
    """Candidate answers: any iterable of strings (a list, an array, a Series, a generator).

    Raises:
        InputError: there are none, or one is blank or not a string.
    """
    expected = "expected a list of at least one non-blank string"
    choices = _listed(given, "choices", "strings")
    if not choices:
        raise InputError(f"choices: none; {expected}.")
    for place, choice in enumerate(choices):
        if not isinstance(choice, str) or not choice.strip():
            raise InputError(f"choices: {choice!r} at {place}; {expected}.")
    return [str(choice) for choice in choices]


def format_of(given: PromptFormat | str | None) -> PromptFormat | None:
    """A prompt format; a string is a plain template, and ``"chat"`` the family's own; None for the backend's default.

    Raises:
        FormatError: the template lacks a part.
        InputError: something else.
    """
    if given is None or isinstance(given, PromptFormat):
        return given
    if given == "chat":
        return PromptFormat.chat()
    if isinstance(given, str):
        return PromptFormat.plain(given)
    raise InputError(f"prompt_format is {_kind(given)}; expected a PromptFormat, a plain template or 'chat'.")


def _listed(given: Any, name: str, expected: str) -> list[Any]:
    if isinstance(given, str | bytes | Mapping):
        raise InputError(f"{name}: {_kind(given)}; expected a list of {expected}.")
    if isinstance(given, set | frozenset):
        raise InputError(f"{name}: a set, which has no order; expected a list of {expected}.")
    try:
        items = list(given)
    except TypeError:
        raise InputError(f"{name}: {_kind(given)}; expected a list of {expected}.") from None
    if not items and not isinstance(given, Sized):
        raise gave_nothing(name, given)
    return items


def _query(item: Any, place: str) -> Query:
    if isinstance(item, Query):
        return item
    if is_image(item):
        return Query(item)
    if isinstance(item, tuple) and len(item) == 2 and is_image(item[0]) and isinstance(item[1], str):
        return Query(*item)
    raise InputError(f"query{place} is {_kind(item)}; expected a Query, an image, or a pair of an image and its text.")


def _kind(value: object) -> str:
    return type(value).__name__
