"""One line about what a job's longest prompts will take, before it starts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Final

from aim_sdk.injection.cost import not_known
from aim_sdk.injection.cost_sample import longest
from aim_sdk.selection.base import DEFAULT_SHOTS

if TYPE_CHECKING:
    from aim_sdk.pipeline import AIMPipeline
    from aim_sdk.types import Demonstration, Mode, Query

_COUNTED: Final = 64
"""Demonstrations that are counted."""
_LOOKED_AT: Final = 1024
"""Demonstrations of a bank, which may hold millions, whose texts are looked at."""


def cost_line(
    pipe: AIMPipeline,
    shots: int | None,
    *,
    mode: Mode,
    demonstrations: Sequence[Demonstration] | None = None,
    queries: Sequence[Query] = (),
    batch_size: int = 8,
    max_new_tokens: int = 32,
) -> str:
    """Say what the longest prompt of a job takes and whether it fits. No weights are loaded, nothing is computed, and
    no error is raised: where the cost cannot be counted, the line says why.

    Args:
        pipe: answers.
        shots: demonstrations per prompt; None: as many as are shown by default.
        mode: how they are shown.
        demonstrations: what may be shown; None: the bank's.
        queries: what is asked; the longest are counted.
        batch_size, max_new_tokens: as in `AIMPipeline.generate`.
    """
    try:
        if demonstrations is None:
            demonstrations = [entry.demonstration for entry in islice(pipe.bank.values(), _LOOKED_AT)]
        return pipe.cost(
            min(DEFAULT_SHOTS, len(demonstrations)) if shots is None else shots,
            modes=[mode],
            demonstrations=longest(demonstrations, _COUNTED),
            queries=queries or None,
            batch_size=batch_size,
            max_new_tokens=max_new_tokens,
        ).line
    except Exception as error:  # a courtesy never ends a command
        return not_known(error)
