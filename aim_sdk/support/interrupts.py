"""Ctrl-C and SIGTERM: a run saves after its step and stops."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """The first SIGINT or SIGTERM stops the run after its current step; the second one stops it at once."""
    received = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal received
        received = True
        signal.signal(number, before[number])

    before: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in before:
            signal.signal(number, note)
    except ValueError:  # not the main thread: whoever started that thread stops it in another way
        before = {}
    try:
        yield lambda: received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
