"""Progress of long work, on stderr: a bar on a terminal, and elsewhere (a file, a pipe) a plain line now and then.

All long work of the SDK shows itself here. Lines come from a thread of their own: a forward that takes minutes does not
delay them. Short work writes none.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from aim_sdk.support.terminal import clean, console, say

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

Advance = Callable[[int], None]
"""Called with the number of items that are done."""

EVERY: Final = 10.0
"""Seconds between two lines."""


class Progress(AbstractContextManager["Progress"]):
    """Counts what is done of some work, and shows it.

    Work within other work (an evaluation within a training) shares its bar's place on the terminal.

    Args:
        description: what is done.
        total: how many items there are; None if it is not known. If more are done, the total grows with them.
        done: how many were done before.
        shown: whether anything is written.
    """

    _bars: Bars | None = None
    """What is on the terminal: one for all work, because two would overwrite each other."""

    def __init__(self, description: str, total: int | None, *, done: int = 0, shown: bool = True) -> None:
        self._description, self._total, self._shown = clean(description), total, shown
        self._done = self._before = done
        self._state, self._lines = "", 0
        self._first: tuple[int, float] | None = None
        """What was done first, and when: it waits for a start, too, so the pace is that of what comes after it."""
        self._paused, self._elsewhere = False, 0.0
        self._started = time.monotonic()
        self._update: Callable[[], None] = lambda: None
        self._ended, self._stack = threading.Event(), ExitStack()

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        if self._shown and sys.stderr.isatty():
            self._stack.enter_context(self._bar())
        elif self._shown:
            thread = threading.Thread(target=self._write_lines, name="aim-progress", daemon=True)
            thread.start()
            self._stack.callback(thread.join)
            self._stack.callback(self._ended.set)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        if self._lines:  # a reader of the lines so far also reads about the end
            say(self.line(), err=True)

    def advance(self, done: int) -> None:
        """Note that some items are done."""
        self._done += done
        if self._first is None and done:
            self._first = self._done, self._own()
        if self._total is not None:
            self._total = max(self._total, self._done)
        self._update()

    def state(self, text: str) -> None:
        """Show something about the work besides its numbers."""
        self._state = clean(text)
        self._update()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within the block other work is done: no lines of this one, and the time is not part of its pace."""
        began, self._paused = time.monotonic(), True
        try:
            yield
        finally:
            self._paused, self._elsewhere = False, self._elsewhere + time.monotonic() - began

    def line(self) -> str:
        """How far the work is, in one line."""
        seconds, own = time.monotonic() - self._started, self._own()
        before, since = self._first if self._first and self._done > self._first[0] else (self._before, 0.0)
        pace = (self._done - before) / (own - since) if own > since else 0.0
        count = f"{self._done:,}" if self._total is None else f"{self._done:,}/{self._total:,}"
        parts = [f"{self._description}: {count}", self._state, _pace(pace), f"{clock(seconds)} so far"]
        if self._total is not None and pace and since and self._done < self._total:
            parts.append(f"{clock((self._total - self._done) / pace)} left")
        return ", ".join(part for part in parts if part)

    def _own(self) -> float:
        """Seconds so far, without those of other work."""
        return time.monotonic() - self._started - self._elsewhere

    def _write_lines(self) -> None:
        while not self._ended.wait(EVERY):
            if not self._paused:
                self._lines += 1
                say(self.line(), err=True)

    @contextmanager
    def _bar(self) -> Iterator[None]:
        with ExitStack() as stack:
            outermost = Progress._bars is None
            bars = Progress._bars = stack.enter_context(_bars()) if Progress._bars is None else Progress._bars
            task = bars.add_task(self._description, total=self._total, completed=self._done, state="")

            def update() -> None:
                bars.update(task, completed=self._done, total=self._total, state=self._state)

            self._update = update
            try:
                yield
            finally:
                if outermost:
                    Progress._bars = None
                else:
                    bars.remove_task(task)


@contextmanager
def advancing(description: str, total: int | None, *, shown: bool = True) -> Iterator[Advance]:
    """Show how far some work is; the block calls what it is given with each number of items that are done."""
    with Progress(description, total, shown=shown) as work:
        yield work.advance


def clock(seconds: float) -> str:
    """Hours, minutes and seconds: ``0:01:30``."""
    return str(timedelta(seconds=round(seconds)))


def _pace(pace: float) -> str:
    """Items per second, or per minute if they are slower."""
    if not pace:
        return ""
    return f"{pace:,.1f} per second" if pace >= 1 else f"{60 * pace:,.1f} per minute"


def _bars() -> Bars:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Bars(*columns, console=console(err=True))
