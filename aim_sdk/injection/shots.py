"""Which demonstrations a query is shown, and in which form: one value."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from typing_extensions import TypeIs

from aim_sdk.bank.collection import DemonstrationCollection
from aim_sdk.bank.entry import BankEntry
from aim_sdk.bank.verdict import VerdictWarning
from aim_sdk.errors import InputError, ShotsError
from aim_sdk.injection.given import Demonstrations, Given, check_mode, given_demonstrations, shots_of
from aim_sdk.selection.base import Selector
from aim_sdk.selection.registry import get_selector
from aim_sdk.types import Demonstration, Mode


@dataclass(frozen=True, slots=True, init=False)
class Shots:
    """What is shown before each query: the ``shots=`` of every answering method, for when a number is not enough.

    It can be made once and used for many calls.

    Args:
        count: how many demonstrations; None: of the bank's, up to 8 (`aim_sdk.selection.base.DEFAULT_SHOTS`), as many
            as exist and fit the context; of ``demonstrations``, all.
        mode: ``"aim"``, or a baseline on the same demonstrations; see `aim_sdk.types.Mode`.
        selector: chooses each query's from the bank: a name or an object; None: the pipeline's own.
        demonstrations: these instead of the bank's: the same for every query, or some for each.

    Raises:
        InputError: an argument has a wrong type or value.
    """

    count: int | None
    mode: Mode
    selector: Selector | None
    demonstrations: Given | None

    def __init__(
        self,
        count: int | None = None,
        *,
        mode: Mode = "aim",
        selector: str | Selector | None = None,
        demonstrations: Demonstrations | None = None,
    ) -> None:
        check_mode(mode)
        if selector is not None and demonstrations is not None:
            raise InputError("selector and demonstrations: what is given is shown, and nothing is chosen; pass one.")
        object.__setattr__(self, "count", shots_of(count))
        object.__setattr__(self, "mode", mode)
        object.__setattr__(self, "selector", None if selector is None else get_selector(selector))
        made = None if demonstrations is None else given_demonstrations(demonstrations)
        object.__setattr__(self, "demonstrations", made)

    @property
    def may_be_fewer(self) -> bool:
        """Whether fewer may be shown to fit the context: no number was asked for, and no demonstrations were given."""
        return self.count is None and self.demonstrations is None


def same_for_all(shots: Shots) -> list[Demonstration] | None:
    """The demonstrations that every image is shown; None: a selector chooses from the bank.

    Raises:
        InputError: each query has some of its own.
    """
    if shots.demonstrations is None:
        return None
    same: list[Demonstration] = []
    for item in shots.demonstrations:
        if isinstance(item, tuple):
            raise InputError("demonstrations: a list for each image; all images are labelled after the same ones here.")
        same.append(item.demonstration if isinstance(item, BankEntry) else item)
    return same


def check_votes(shots: Shots) -> None:
    """Refuse what makes no sense for a vote of the nearest demonstrations.

    Raises:
        InputError: another mode.
        ShotsError: no shots.
    """
    if shots.mode not in ("aim", "nearest"):
        raise InputError(f"shots has mode={shots.mode!r}, but here the demonstrations vote; leave the mode out.")
    if shots.count == 0:
        raise ShotsError("shots=0: no demonstration votes; expected at least 1.")


Count: TypeAlias = "int | Shots | Literal['auto'] | None"
"""What ``shots=`` takes."""
How: TypeAlias = "Mode | Literal['auto'] | None"
"""What ``mode=`` takes."""


def shots_value(
    bank: DemonstrationCollection,
    shots: Count,
    mode: How = None,
    selector: str | Selector | None = None,
    demonstrations: Demonstrations | None = None,
) -> Shots:
    """Make one value of the keywords of an answering method; ``"auto"`` takes the bank's verdict.

    Raises:
        InputError: both a `Shots` and a keyword that it holds were given; ``"auto"``, and the bank has no verdict or
            there is another keyword; or see `Shots`.
    """
    if _is_auto(shots) or _is_auto(mode):
        named = {"shots": shots, "mode": mode, "selector": selector, "demonstrations": demonstrations}
        others = [name for name, value in named.items() if value is not None and not _is_auto(value)]
        return _of_verdict(bank, others)
    if not isinstance(shots, Shots):
        return Shots(shots, mode="aim" if mode is None else mode, selector=selector, demonstrations=demonstrations)
    asked = {"mode": mode, "selector": selector, "demonstrations": demonstrations}
    if given := [name for name, value in asked.items() if value is not None]:
        raise InputError(
            f"shots is a Shots, which holds {given[0]} as well; pass {given[0]} to it: Shots({given[0]}=...)."
        )
    return shots


def _is_auto(value: object) -> TypeIs[Literal["auto"]]:
    return isinstance(value, str) and value == "auto"


def _of_verdict(bank: DemonstrationCollection, others: Sequence[str]) -> Shots:
    """What an assessment of the bank found best."""
    if others:
        raise InputError(
            f"'auto' takes the mode, the shots and the selector of the bank's verdict, but {', '.join(others)} "
            f"{'is' if len(others) == 1 else 'are'} given, too.\nNext: leave {' and '.join(others)} out, or name them "
            "all instead of 'auto'."
        )
    if (kept := bank.verdict) is None:
        name = "BANK" if bank.path is None else bank.path
        raise InputError(
            f"'auto': the bank was not assessed. Next: `aim-icl bank assess {name}`, or pipe.assess(), "
            "or name the shots and the mode."
        )
    if kept.stale(bank):
        warnings.warn(
            f"the verdict is of {kept.demonstrations} demonstrations, and the bank has changed since (it holds "
            f"{len(bank)}): it may not be true any more. Next: assess it again.",
            VerdictWarning,
            stacklevel=4,
        )
    if kept.shots > len(bank):
        raise ShotsError(
            f"'auto': the bank's verdict shows {kept.shots} demonstrations, and the bank holds {len(bank)} now.\n"
            "Next: assess it again, or name the shots and the mode."
        )
    if kept.mode == "zero-shot":
        warnings.warn(f"no demonstrations are shown: {kept.sentence}", VerdictWarning, stacklevel=4)
    return Shots(kept.shots, mode=kept.mode, selector=kept.selector)
