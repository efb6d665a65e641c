"""A process that torchrun started ends with torchrun, also if that was killed."""

from __future__ import annotations

import os
import threading
import time
from typing import Final

_EVERY: Final = 0.2
"""Seconds between two looks."""


def end_with_launcher() -> None:
    """Watch torchrun, if it started this process.

    torchrun gives its processes sessions of their own, so that a signal which kills it leaves them running: they would
    write where the next call writes.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        threading.Thread(target=_watch, args=(os.getppid(),), name="aim-launcher", daemon=True).start()


def _watch(launcher: int) -> None:
    while os.getppid() == launcher:
        time.sleep(_EVERY)
    os._exit(1)
