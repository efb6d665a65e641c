"""Peak memory of one query over k shots, on pocket, above what was resident before it: activations and caches.

The ways of showing demonstrations are those of ``benchmarks.speed.latency``. Before each query glibc gives back what it
keeps of freed memory; the kernel's high-water mark is then reset (Linux).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.speed.latency import WAYS, LatencyBench
from benchmarks.speed.measure import write_result
from benchmarks.speed.ways import ZERO_SHOT

SHOTS = (4, 16)


@contextmanager
def peak() -> Iterator[list[int]]:
    """Bytes that the block had resident at most, above those before it."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before, grown = _status("VmRSS"), list[int]()
    yield grown
    grown.append(max(0, _status("VmHWM") - before))


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))


def measure() -> list[dict[str, Any]]:
    """The median of three queries per cell; the prefix of the reused ones is there before."""
    bench = LatencyBench()
    variants: dict[tuple[str, int], Callable[[], int]] = {(ZERO_SHOT, 0): bench.variant(ZERO_SHOT, 0)}
    variants |= {(way, k): bench.variant(way, k) for k in SHOTS for way in WAYS}
    cells = []
    for (way, k), run in variants.items():
        found = []
        for _ in range(5):  # the second one computes the prefix apart, the third finds it
            with peak() as grown:
                run()
            found.append(grown[0])
        cells.append({"way": way, "shots": k, "peak_bytes": sorted(found[2:])[1]})
        print(f"{way:22} k={k:<3} {cells[-1]['peak_bytes'] / 2**20:8.1f} MiB", flush=True)
    return cells


def main() -> None:
    print(write_result("memory", {"backbone": "pocket", "cells": measure()}))


if __name__ == "__main__":
    main()
