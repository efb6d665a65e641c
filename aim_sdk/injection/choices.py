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


def checked_choices(choices: Iterable[str]) -> list[str]:
    """The choices as a list.

    Raises:
        InputError: fewer than two, one is not text or blank, or two differ only in blanks.
    """
    found = [] if isinstance(choices, str) else list(choices)
    if len(found) < 2 or not all(isinstance(choice, str) and choice.strip() for choice in found):
        wrong = repr(choices) if isinstance(choices, str) else f"[{', '.join(map(repr, found[:10]))}]"
        raise InputError(f"choices: {wrong}; expected at least two non-blank strings, as a list.")
    for choice in found:
        if not choice.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in choice):
            raise InputError(f"choices: {choice!r} is not text: it holds half of a character.")
    same = [choice for choice in found if sum(other.strip() == choice.strip() for other in found) > 1]
    if same:
        raise InputError(f"choices: {same[0]!r} appears more than once.")
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
