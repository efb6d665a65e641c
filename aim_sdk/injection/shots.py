"""Which demonstrations a query is shown, and in which form: one value."""

from __future__ import annotations

from dataclasses import dataclass

from aim_sdk.bank.entry import BankEntry
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


def shots_value(
    shots: int | Shots | None,
    mode: Mode | None = None,
    selector: str | Selector | None = None,
    demonstrations: Demonstrations | None = None,
) -> Shots:
    """Make one value of the keywords of an answering method.

    Raises:
        InputError: both a `Shots` and a keyword that it holds were given; or see `Shots`.
    """
    if not isinstance(shots, Shots):
        return Shots(shots, mode="aim" if mode is None else mode, selector=selector, demonstrations=demonstrations)
    asked = {"mode": mode, "selector": selector, "demonstrations": demonstrations}
    if given := [name for name, value in asked.items() if value is not None]:
        raise InputError(
            f"shots is a Shots, which holds {given[0]} as well; pass {given[0]} to it: Shots({given[0]}=...)."
        )
    return shots
