"""A progress bar on stderr for long work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from aim_sdk.terminal import clean, console

Advance = Callable[[int], None]
"""Called with the number of items that are done."""


@contextmanager
def advancing(description: str, total: int | None, *, shown: bool = True) -> Iterator[Advance]:
    """Show how far some work is; the block calls what it is given with each number of items that are done."""
    if not shown:
        yield lambda _: None
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console(err=True)) as bar:
        task = bar.add_task(clean(description), total=total)
        yield lambda done: bar.advance(task, done)
