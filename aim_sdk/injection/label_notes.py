"""Warnings, once per job, about labels that would mislead; the command line prints them."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from aim_sdk.bank.bank import DemonstrationBank
from aim_sdk.errors import ImageError, did_you_mean
from aim_sdk.files.images import image_digest
from aim_sdk.injection.choices import alike, alike_in_words, folded
from aim_sdk.types import Demonstration, Query

_SHOWN = 10
"""Names that a note lists."""


class LabelWarning(UserWarning):
    """Labels or answers would mislead, because of the demonstrations that are shown or of the choices."""


def note(text: str) -> None:
    """Issue a `LabelWarning` with this text."""
    warnings.warn(text, LabelWarning, stacklevel=2)


def bank_answers(bank: DemonstrationBank) -> frozenset[str]:
    """The distinct answers of a bank, without surrounding blanks; looked up once until the bank changes."""
    return bank.view().kept("answers", lambda: frozenset(entry.demonstration.answer.strip() for entry in bank.values()))


def one_answer(shown: Sequence[str]) -> str | None:
    """The answer that all have, if they have one."""
    found = {answer.strip() for answer in shown}
    return found.pop() if len(found) == 1 else None


def note_one_answer(count: int, answer: str, *, given: bool) -> None:
    """All queries are shown the same demonstrations, of one answer, though there are others."""
    who = f"all {count} shown demonstrations say" if count > 1 else "the shown demonstration says"
    similar = "selector='reading' (--selector reading) shows each query the most similar ones"
    advice = f"pass more shots, or add them to the bank, where {similar}" if given else f"{similar}, or pass more shots"
    note(f"{who} {answer[:40]!r}, though there are others; {advice}.")


def note_choices_without_examples(choices: Sequence[str], answers: Collection[str], *, votes: bool) -> None:
    """A choice that no demonstration says is shown without an example; where they vote, it gets no vote."""
    missing = [choice for choice in choices if choice.strip() not in answers]
    near = "".join(dict.fromkeys(did_you_mean(one, sorted(answers)) for one in missing[:_SHOWN]))
    if not missing or not answers:
        return
    if len(missing) < len(choices):
        mode, so = (
            ("mode 'nearest': ", "no image can get that label") if votes else ("", "no prompt has an example of it")
        )
        note(f"{mode}no demonstration says {_either(missing)}, so {so}.{near}")
    elif not votes:  # there, it is refused
        note(
            f"no demonstration says any of the choices ({_listed(choices)}), so no prompt has an example of one; the "
            f"demonstrations say {_listed(sorted(answers))}.{near}"
        )


def note_alike(choices: Sequence[str], answers: Collection[str]) -> None:
    """Choices, or answers to choose among, that only case or blanks tell apart: probably one class each."""
    chosen = set(map(folded, choices))
    if found := {*alike(choices), *alike(answer for answer in answers if folded(answer) in chosen)}:
        note(f"{alike_in_words(sorted(found))}; they count as different labels.")


@dataclass
class Astray:
    """Votes for answers that are not choices."""

    shares: dict[str, float] = field(default_factory=dict)
    count: int = 0
    """Images that were voted on and got a label."""

    def add(self, shares: Mapping[str, float], choices: Collection[str]) -> None:
        """Count one image's votes; choices are without surrounding blanks."""
        self.count += 1
        for answer, share in shares.items():
            if answer not in choices:
                self.shares[answer] = self.shares.get(answer, 0.0) + share

    def tell(self) -> None:
        """Say how much of the votes that was."""
        if self.shares:
            lost = 100 * sum(self.shares.values()) / self.count
            worst = sorted(self.shares, key=lambda answer: -self.shares[answer])
            over = "1 labelled image" if self.count == 1 else f"{self.count} labelled images"
            note(
                f"mode 'nearest': {lost:.1f} % of the votes on {over} went to answers that are not choices "
                f"({_listed(worst)}); they are left out, and the rest is scaled to 1."
            )


@dataclass
class Own:
    """Queries that are demonstrations themselves."""

    bank: DemonstrationBank
    given: Sequence[Demonstration] | None
    """What every query is shown; None: a selector chooses from the bank."""
    shown: bool
    """Whether a query of them is shown its own, too."""
    count: int = 0
    _keys: frozenset[tuple[str, str]] | None = None

    def add(self, queries: Iterable[Query]) -> None:
        """Count those that are."""
        self.count += sum(map(self._is_own, queries))

    def tell(self) -> None:
        """Say how many there are."""
        if not self.count:
            return
        one = self.count == 1
        who = "1 query is a demonstration, too" if one else f"{self.count} queries are demonstrations, too"
        if self.shown:
            shown = "its answer is shown to it" if one else "their answers are shown to them"
            note(f"{who}, and {shown}; selector='reading' (--selector reading) leaves a query's own out.")
        else:
            note(f"{who}; a query's own is never shown to it.")

    def _is_own(self, query: Query) -> bool:
        try:
            if self.given is None:
                return bool(self.bank.view().own(query))
            if self._keys is None:
                self._keys = frozenset((image_digest(item.image), item.text) for item in self.given)
            return (image_digest(query.image), query.text) in self._keys
        except ImageError:  # it is reported where it is read
            return False


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name[:40]) for name in names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _either(names: Sequence[str]) -> str:
    return " or ".join(repr(name[:40]) for name in names[:_SHOWN]) + (" or others" if len(names) > _SHOWN else "")
