"""Where in an adapter's own code an exception came from: for messages, instead of a traceback through the kit."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator

_OTHERS = {"aim_sdk", "numpy", "PIL", "pydantic", "safetensors", "tokenizers", "torch", "transformers"}
_SHOWN = 3
"""Lines of the adapter's, the innermost ones."""


def explained(error: BaseException) -> str:
    """An exception with its place: the adapter's lines that led to it, the line that raised it, and the cause."""
    lines = [f"{type(error).__name__}: {error}", *_places(error)]
    if (cause := error.__cause__) is not None:
        lines += [f"caused by {type(cause).__name__}: {cause}", *_places(cause)]
    return "\n".join(lines)


def _places(error: BaseException) -> list[str]:
    found = list(_frames(error))
    own = [place for package, place in found if package not in _OTHERS and package not in sys.stdlib_module_names]
    raised = [found[-1][1]] if found else []
    return own[-_SHOWN:] + [place for place in raised if place not in own]


def _frames(error: BaseException) -> Iterator[tuple[str, str]]:
    """Each frame's package, and its place as text."""
    for frame, number in traceback.walk_tb(error.__traceback__):
        (line,) = traceback.StackSummary.extract([(frame, number)])
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        yield package, f"  {line.filename}:{number}, in {line.name}: {line.line or '?'}"
