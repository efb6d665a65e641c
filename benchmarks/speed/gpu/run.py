"""Measures what a result file lacks of a shape."""

from __future__ import annotations

import gc
from functools import partial

import torch

from aim_sdk.support.progress import Progress, clock
from aim_sdk.support.terminal import say
from benchmarks.speed.gpu.bench import Bench
from benchmarks.speed.gpu.parts import PARTS
from benchmarks.speed.gpu.record import Record
from benchmarks.speed.gpu.room import Attempt, attempt, release
from benchmarks.speed.gpu.shapes import SHAPES
from benchmarks.speed.measure import seconds


def measure(name: str, record: Record, device: torch.device, *, small: bool) -> None:
    """Measure the parts of a shape that are not in the record, and keep each as soon as it is there."""
    missing = [part for part in PARTS if part not in record.parts(name)]
    if not missing:
        say(f"{name}: all {len(PARTS)} parts are in {record.path} already", err=True)
        return
    with Progress(name, len(PARTS), done=len(PARTS) - len(missing)) as work:
        try:
            work.state("drawing the model")
            made = attempt(partial(Bench, SHAPES[name], device, small=small))
            if made.found is None:
                say(f"{name}: {made.left_out}; nothing of it can be measured here", err=True)
                record.describe(name, {"left_out": made.left_out})
                return
            record.describe(name, made.found.about)
            for part in missing:
                work.state(part)
                _measure(name, part, made.found, record)
                work.advance(1)
        finally:
            made = Attempt()
            gc.unfreeze()
            release()  # the next shape needs the room


def _measure(name: str, part: str, bench: Bench, record: Record) -> None:
    tried: list[Attempt[dict[str, object]]] = []
    taken = seconds(lambda: tried.append(attempt(partial(PARTS[part], bench))))
    found = tried[0].found if tried[0].found is not None else {"left_out": tried[0].left_out}
    record.add(name, part, {**found, "seconds_taken": round(taken, 1)})
    note = f": {tried[0].left_out}" if tried[0].left_out else ""
    say(f"{name}, {part}: measured in {clock(taken)}{note}", err=True)
