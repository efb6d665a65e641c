"""The most memory that a block of work takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

_RESET = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


@dataclass
class Peak:
    """Filled when the block ends."""

    bytes: int | None = None


@contextmanager
def peak() -> Iterator[Peak]:
    """Measure a block: GPU memory that torch holds, or else what the process has resident (Linux; elsewhere None)."""
    found = Peak()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        yield found
        found.bytes = torch.cuda.max_memory_allocated()
        return
    reset = _reset()
    yield found
    found.bytes = _high_water() if reset else None


def _reset() -> bool:
    try:
        _RESET.write_text("5")  # the kernel's high-water mark begins anew
    except OSError:
        return False
    return True


def _high_water() -> int | None:
    lines = _STATUS.read_text().splitlines()
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")), None)
