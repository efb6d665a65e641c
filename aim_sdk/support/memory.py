"""The memory that a block of work takes beyond what was held before it, if that can be measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch


@dataclass
class Peak:
    """Filled when the block ends."""

    bytes: int | None = None


@contextmanager
def peak(device: torch.device) -> Iterator[Peak]:
    """Measure a block: the most that torch's tensors took on the GPUs, less what was held when it began.

    So the order of blocks does not matter. None on other devices: a process's resident memory includes what earlier
    work left, and says nothing about this block.
    """
    found = Peak()
    if device.type != "cuda":
        yield found
        return
    devices = range(torch.cuda.device_count())  # a model may be spread over several
    before = [torch.cuda.memory_allocated(number) for number in devices]
    for number in devices:
        torch.cuda.reset_peak_memory_stats(number)
    yield found
    found.bytes = sum(
        torch.cuda.max_memory_allocated(number) - held for number, held in zip(devices, before, strict=True)
    )
