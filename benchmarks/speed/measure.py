"""What the speed scripts share: timing in turns, memory, and the result file."""

from __future__ import annotations

import datetime
import gc
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from aim_sdk.files.atomic import write_atomic
from aim_sdk.support.provenance import provenance

RESULTS = Path(__file__).parents[1] / "results"
ASSETS = Path(__file__).parents[2] / "docs" / "assets"
TODAY = datetime.date.today().isoformat()


def in_turns(variants: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every variant in each round; they run in turns, so what else the machine does hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, run in variants.items():
            times[name].append(seconds(run))
    return times


def seconds(run: Callable[[], Any]) -> float:
    """Seconds of one call, with the garbage of the one before collected and a GPU's queue waited for."""
    gc.collect()
    _wait()
    started = time.perf_counter()
    run()
    _wait()
    return time.perf_counter() - started


def summary(times: Sequence[float]) -> dict[str, float]:
    """Median and quartiles in milliseconds."""
    low, middle, high = statistics.quantiles([1e3 * value for value in times], n=4)
    return {"median_ms": round(middle, 3), "quartile_low_ms": round(low, 3), "quartile_high_ms": round(high, 3)}


def ratio(times: Sequence[float], floor: Sequence[float]) -> dict[str, float]:
    """Median and quartiles of the ratio, round by round."""
    low, middle, high = statistics.quantiles([a / b for a, b in zip(times, floor, strict=True)], n=4)
    return {"median": round(middle, 4), "quartile_low": round(low, 4), "quartile_high": round(high, 4)}


def write_result(
    name: str, content: Mapping[str, Any], *, packages: Sequence[str] = (), path: Path | None = None
) -> Path:
    """Write a result with versions and machine; ``path``: not ``benchmarks/results/speed-<name>-<date>.json``."""
    path = path or RESULTS / f"speed-{name}-{TODAY}.json"
    head = provenance(*packages)
    whole = {
        **head,
        "command": f"python -m benchmarks.speed.{name}",
        "machine": {**head["machine"], "torch_threads": torch.get_num_threads(), "device": _device()},
        **content,
    }
    write_atomic(path, (json.dumps(whole, indent=1) + "\n").encode())
    return path


def _device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
