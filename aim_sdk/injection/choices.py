"""The choices for a label: what they are, and how likely each is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final, Literal, get_args

from aim_sdk.errors import InputError, unknown
from aim_sdk.types import ChoiceScores, Demonstration

Normalization = Literal["none", "tokens", "characters"]
MOST_CHOICES: Final = 64
"""The most distinct answers of a bank that are used as choices; more are free-form answers, not classes."""


def checked_choices(choices: Iterable[str], *, fewest: int = 2) -> list[str]:
    """The choices as a list.

    Raises:
        InputError: fewer than `fewest`, one is not text or blank, or two differ only in surrounding blanks.
    """
    expected = f"expected at least {'one non-blank string' if fewest == 1 else 'two non-blank strings'}, as a list"
    if isinstance(choices, str | bytes) or not isinstance(choices, Iterable):
        raise InputError(f"choices: {choices!r:.80}, of the type {type(choices).__name__}; {expected}.")
    found = list(choices)
    for place, choice in enumerate(found):
        if not isinstance(choice, str):
            kind = type(choice).__name__
            raise InputError(f"choices: {choice!r:.80} at {place} is of the type {kind}; {expected}.")
        if not choice.strip():
            raise InputError(f"choices: {choice!r:.80} at {place} is blank; {expected}.")
    if len(found) < fewest:
        raise InputError(f"choices: {found if found else 'none'}; {expected}.")
    for choice in found:
        if not choice.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in choice):
            raise InputError(f"choices: {choice!r} is not text: it holds half of a character.")
    places: dict[str, int] = {}
    for place, choice in enumerate(found):
        first = places.setdefault(choice.strip(), place)
        if first != place:
            how = "are the same" if found[first] == choice else "differ only in surrounding blanks"
            raise InputError(f"choices: {found[first]!r} at {first} and {choice!r} at {place} {how}.")
    return found


def check_normalize(normalize: object) -> None:
    """Refuse an unknown normalisation.

    Raises:
        InputError: naming the known ones.
    """
    if normalize not in get_args(Normalization):
        raise InputError(f"normalize: {unknown('normalization', normalize, get_args(Normalization))}")


def choices_of(demonstrations: Iterable[Demonstration]) -> list[str]:
    """The distinct answers, in the order of their first demonstrations.

    Raises:
        InputError: fewer than two, or over `MOST_CHOICES`.
    """
    found: dict[str, None] = {}
    for item in demonstrations:
        found[item.answer.strip()] = None
        if len(found) > MOST_CHOICES:
            some = ", ".join(repr(answer[:40]) for answer in islice(found, 3))
            raise InputError(
                f"the demonstrations have over {MOST_CHOICES} distinct answers ({some}, ...): these are not classes.\n"
                "Next: name the choices, --choices (choices=[...]), or let the model answer freely."
            )
    if len(found) < 2:
        raise InputError(
            f"the demonstrations have {len(found)} distinct answers ({listed(list(found))}); a choice is between at "
            "least two.\nNext: add demonstrations of the other classes, or name the choices."
        )
    return checked_choices(found)


def folded(label: str) -> str:
    """A label without its case, and with its blanks made single ones."""
    return " ".join(label.split()).casefold()


def alike(labels: Iterable[str]) -> list[tuple[str, ...]]:
    """Those labels, without surrounding blanks, that only case or blanks tell apart; sorted."""
    found: dict[str, set[str]] = {}
    for label in labels:
        found.setdefault(folded(label), set()).add(label.strip())
    return sorted(tuple(sorted(same)) for same in found.values() if len(same) > 1)


def alike_in_words(found: Sequence[Sequence[str]]) -> str:
    """What `alike` found, for a message."""
    some = "; ".join(" and ".join(repr(label[:80]) for label in same) for same in found[:10])
    return f"only case or blanks tell apart {some}" + ("; ..." if len(found) > 10 else "")


def text_of(demonstrations: Iterable[Demonstration]) -> str:
    """The text that all demonstrations share; empty if there are no demonstrations.

    Raises:
        InputError: they differ.
    """
    found: dict[str, None] = {}
    for item in demonstrations:
        found[item.text] = None
        if len(found) > 1:
            raise InputError(
                f"the demonstrations' texts differ ({listed(list(found))}, ...): which of them is asked?\n"
                "Next: pass --text (text=...), or queries with texts of their own."
            )
    return next(iter(found), "")


def normalized(scores: ChoiceScores, choices: Sequence[str], normalize: Normalization) -> list[float]:
    """The log-probability of each choice: the sum over its tokens, or per token, or per character."""
    sums = list(map(sum, scores.log_probs))
    if normalize == "none":
        return sums
    lengths = map(len, scores.log_probs if normalize == "tokens" else choices)
    return [value / length for value, length in zip(sums, lengths, strict=True)]


def softmax(values: Sequence[float]) -> list[float]:
    """Shares that sum to 1, in proportion to e to the power of the values."""
    top = max(values)
    weights = [math.exp(value - top) for value in values]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def listed(texts: Sequence[str]) -> str:
    """The first of some texts, for a message."""
    return ", ".join(repr(text[:40]) for text in texts[:10]) + (", ..." if len(texts) > 10 else "")
