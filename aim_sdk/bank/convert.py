"""Converts a bank for another backbone, projector or prompt format; the original is not changed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from aim_sdk.bank.adding import OnError
from aim_sdk.bank.bank import DemonstrationBank
from aim_sdk.bank.binding import reads_alike
from aim_sdk.errors import InputError
from aim_sdk.reading.encoder import BATCH_TOKENS
from aim_sdk.support.progress import Advance
from aim_sdk.types import Demonstration

_BATCH = 64
"""Demonstrations that are projected, or handed over to be read, together."""


def convert(
    source: DemonstrationBank,
    target: DemonstrationBank,
    *,
    batch_tokens: int = BATCH_TOKENS,
    on_error: OnError | None = None,
    advance: Advance = lambda _: None,
) -> bool:
    """Put all demonstrations of one bank into another; return whether kept readings were enough.

    If only the projector differs and the source keeps its readings, they are projected and no image is read;
    otherwise every demonstration is read again. Interrupted, the same call resumes.

    Raises:
        InputError: an image is missing or has changed, and there is no ``on_error``.
    """
    project = source.keeps_readings and reads_alike(source.binding, target.binding)
    keys = iter(source.keys())
    while batch := list(islice(keys, _BATCH)):
        if project:
            target.project_from(source, batch)
        else:
            target.add(_checked(source, batch, on_error), batch_tokens=batch_tokens, on_error=on_error)
        advance(len(batch))
    return project


def _checked(source: DemonstrationBank, keys: Sequence[str], on_error: OnError | None) -> list[Demonstration]:
    """Those whose images are the ones that were read."""
    found = []
    for entry in map(source.__getitem__, keys):
        try:
            found.append(entry.checked())
        except InputError as error:
            if on_error is None:
                raise
            on_error(entry.demonstration, error)
    return found
