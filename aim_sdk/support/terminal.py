"""What the command line prints: texts from outside are shown unchanged, and never interpreted.

An answer, a path or a message may hold escape sequences, which a terminal would run, or ``[brackets]``, which rich
would take for its markup. Everything that a command prints goes through here.
"""

from __future__ import annotations

import json
import os
import re
import sys
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

KEPT = 10
"""Problems of one command that are shown; the others are counted."""

_UNWRAPPED = 1000
"""Columns of what is no terminal: longer rows are written as records."""

_OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but tab and line feed, changes of the writing direction, and halves of surrogate pairs."""


class Problems:
    """What could not be used: the first few messages, and how many there are, so that memory is bounded."""

    def __init__(self) -> None:
        self._kept: list[str] = []
        self._count = 0

    def add(self, text: str) -> None:
        """Note one."""
        self._count += 1
        if len(self._kept) < KEPT:
            self._kept.append(text)

    def __add__(self, other: Problems) -> Problems:
        both = Problems()
        both._kept, both._count = (self._kept + other._kept)[:KEPT], self._count + other._count
        return both

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[str]:
        """The messages that are kept."""
        return iter(self._kept)


def clean(text: object) -> str:
    r"""A text with control characters written as in JSON, ``\u001b`` for an escape."""
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", str(text))


def say(text: object, *, err: bool = False, color: str | None = None) -> None:
    """Print a text on a line of its own."""
    import typer

    typer.secho(clean(text), err=err, fg=color)


def warn(text: object) -> None:
    """Print on stderr, in yellow."""
    say(text, err=True, color="yellow")


_quiet = False


def quiet_libraries() -> None:
    """Make this process a command's: warnings are one line, without their source; see `libraries_are_quiet`."""
    global _quiet
    _quiet = True

    def show(message: Warning | str, category: type[Warning], *rest: Any, **places: Any) -> None:
        if not issubclass(category, DeprecationWarning | PendingDeprecationWarning | FutureWarning):  # ours to fix
            warn(f"warning: {' '.join(str(message).split())}")

    warnings.showwarning = show


def libraries_are_quiet() -> bool:
    """Whether libraries show no bars of their own: the command shows one for all its work."""
    return _quiet


def warn_all(problems: Problems) -> None:
    """Print the problems that are kept, and how many more there are."""
    for problem in problems:
        warn(problem)
    if len(problems) > KEPT:
        warn(f"... and {len(problems) - KEPT:,} more like these.")


def say_json(value: Any, *, indent: int | None = None) -> None:
    """Print a value as JSON that stays valid whatever it holds and whatever the terminal can show."""
    ascii_only = not (sys.stdout.encoding or "").lower().startswith("utf")
    say(json.dumps(value, indent=indent, ensure_ascii=ascii_only))


def cell(text: object, style: str = "") -> Text:
    """A text for a table or a console of rich."""
    from rich.text import Text

    return Text(clean(text), style=style)


def console(*, err: bool = False) -> Console:
    """A console that takes strings as they are: no markup, no emoji codes, no colouring of numbers.

    What is piped is not wrapped, unless COLUMNS says how wide it is: a row is one line, and an address stays whole.
    """
    from rich.console import Console

    stream = sys.stderr if err else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else _UNWRAPPED
    return Console(stderr=err, markup=False, emoji=False, highlight=False, width=width)
