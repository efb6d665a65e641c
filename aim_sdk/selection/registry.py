"""Selectors by name: the built-in ones, and those of installed distributions."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

from aim_sdk.errors import InputError
from aim_sdk.support.plugins import Registry

if TYPE_CHECKING:
    from aim_sdk.selection.base import Selector


class _Selectors(Registry["type[Selector]"]):
    def check(self, name: str, part: Any) -> str:
        from aim_sdk.selection.base import Selector  # imports torch, which checking a name must not do

        good = isinstance(part, type) and issubclass(part, Selector)
        return "" if good else f"{part!r} is not a selector; expected a subclass of aim_sdk.Selector"


SELECTORS: Final = _Selectors(
    "selector",
    "aim_sdk.selectors",
    {
        "agreed": "aim_sdk.selection.agreed:AgreedSelector",
        "first": "aim_sdk.selection.builtin:FirstSelector",
        "mmices": "aim_sdk.selection.clip:MmicesSelector",
        "random": "aim_sdk.selection.builtin:RandomSelector",
        "reading": "aim_sdk.selection.builtin:ReadingSelector",
        "rices": "aim_sdk.selection.clip:RicesSelector",
        "text": "aim_sdk.selection.clip:TextSelector",
    },
)
"""Every selector by name."""


DEFAULT_SELECTOR: Final = "reading"
"""The default: what chooses from a bank. A few similar demonstrations beat many."""


def get_selector(selector: str | Selector) -> Selector:
    """Return a selector by name, with its default settings; a selector as it is.

    Raises:
        InputError: no such name.
        MissingDependencyError: it needs a package that is not installed.
        BrokenPluginError: the selector of another distribution cannot be imported.
    """
    from aim_sdk.selection.base import Selector

    if isinstance(selector, Selector):
        return selector
    if not isinstance(selector, str):
        raise InputError(f"no selector named {selector!r}. Expected one of: {', '.join(SELECTORS)}, or a Selector.")
    return _made(selector)


@cache  # so that what it has loaded (CLIP's weights, the bank's mean) serves the next call
def _made(selector: str) -> Selector:
    return SELECTORS[selector]()
