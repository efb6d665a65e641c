"""Selectors: which of the bank's demonstrations a query is shown.

Choose one by name (`get_selector`), or pass an object; your own selector subclasses
[`Selector`][aim_sdk.selection.base.Selector] and scores candidates.

========= ==================================================================================================
random    a draw of its own for every query, seeded by the query's id
first     those that were added first, the same for every query
reading   the most similar pooled readings, which the bank already holds: no second model
agreed    the same, without those whose answer their own neighbours contradict
rices     the most similar images by CLIP (Retrieval-based In-Context Examples Selection)
text      the most similar texts by CLIP
mmices    the most similar images, and among them the most similar texts
========= ==================================================================================================

The most similar demonstration stands last, next to the query. A query's own demonstrations are never chosen: those with
its id, and those with its image and text.
"""

from typing import TYPE_CHECKING

from aim_sdk.support.lazy import lazy

if TYPE_CHECKING:
    from aim_sdk.selection.agreed import AgreedSelector
    from aim_sdk.selection.base import Selector
    from aim_sdk.selection.builtin import FirstSelector, RandomSelector, ReadingSelector
    from aim_sdk.selection.clip import MmicesSelector, RicesSelector, TextSelector
    from aim_sdk.selection.nearest import vote
    from aim_sdk.selection.registry import SELECTORS, get_selector

__all__ = [
    "SELECTORS",
    "AgreedSelector",
    "FirstSelector",
    "MmicesSelector",
    "RandomSelector",
    "ReadingSelector",
    "RicesSelector",
    "Selector",
    "TextSelector",
    "get_selector",
    "vote",
]

if not TYPE_CHECKING:
    __getattr__ = lazy(
        __name__,
        {
            "agreed": ["AgreedSelector"],
            "base": ["Selector"],
            "builtin": ["FirstSelector", "RandomSelector", "ReadingSelector"],
            "clip": ["MmicesSelector", "RicesSelector", "TextSelector"],
            "nearest": ["vote"],
            "registry": ["SELECTORS", "get_selector"],
        },
    )
