"""What is measured of a shape, part by part."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from aim_sdk.reading.encoder import BATCH_TOKENS
from aim_sdk.support import memory
from benchmarks.speed import reading
from benchmarks.speed.gpu.bench import SHOTS, SIZE, Bench
from benchmarks.speed.gpu.room import attempt
from benchmarks.speed.measure import seconds
from benchmarks.speed.memory import peak as resident_peak
from benchmarks.speed.training import measure as training
from benchmarks.speed.ways import ZERO_SHOT, of_zero_shot

Part = Callable[[Bench], dict[str, Any]]

SECONDS = 30.0
"""What the rounds of one part may take, so that a shape takes less than eight minutes on a card of the H100's class."""
FEWEST, MOST = 5, 25
"""Rounds."""


def latency(bench: Bench, k: int) -> dict[str, Any]:
    """Every way at k shots and zero-shot, in turns; peak memory of one query each."""
    bench.forget()
    names = [(ZERO_SHOT, 0), *((way, k) for way in bench.contexts if k)]
    cells: dict[tuple[str, int], dict[str, Any]] = {}
    left_out = []
    for way, shots in names:
        tried = attempt(partial(_warm, bench, bench.variant(way, shots)))
        if tried.found is None:
            left_out.append({"way": way, "shots": shots, "left_out": tried.left_out})
        else:
            cells[way, shots] = tried.found
    if not any(way == ZERO_SHOT for way, _ in cells):
        return {"cells": left_out}
    variants = {name: bench.variant(*name) for name in cells}
    rounds = _rounds(bench, sum(seconds(run) for run in variants.values()))
    times = of_zero_shot(variants, rounds)
    measured = [{"way": way, "shots": shots, **cells[way, shots], **times[way, shots]} for way, shots in cells]
    return {"rounds": rounds, "prefixes": bench.model.prefixes.info(), "cells": measured + left_out}


def kv(bench: Bench) -> dict[str, Any]:
    """Bytes of keys and values of a demonstration: by what the cache of prefixes holds of k and of twice as many."""
    found: dict[str, Any] = {}
    # Of few fused tokens no prefix is kept; of many images none fits into LLaVA-1.5's context.
    for kind, few in (("AIM", 4), ("interleaved", 2)):
        held = {}
        for k in (few, 2 * few):
            bench.forget()
            for _ in range(2):  # the second time the prefix is kept
                bench.variant(f"{kind}, reused", k)()
            held[k] = bench.model.prefixes.info()["bytes"]
        positions = bench.about["positions_per_demonstration"][kind]
        found[kind] = {"positions": positions, "bytes": (held[2 * few] - held[few]) // few}
    bench.forget()
    return {"per_demonstration": found, "interleaved_of_aim": found["interleaved"]["bytes"] / found["AIM"]["bytes"]}


def read(bench: Bench) -> dict[str, Any]:
    """`bank.add` over the bare forward of the same batches."""
    items = reading.demonstrations(bench.paths)
    with _peak(bench) as grown:
        found = reading.measure(bench.model, reading.transformers_floor, items, _rounds(bench, SECONDS), BATCH_TOKENS)
    return {**found, "peak_bytes": grown[0]}


def train(bench: Bench) -> dict[str, Any]:
    """The trainer's steps, with all readings and the teacher's answers cached, over their bare forward and backward."""
    with _peak(bench) as grown, tempfile.TemporaryDirectory() as folder:
        found = training.measure(
            lambda: bench.model,
            Path(folder),
            batch_size=2,
            count=3 if bench.small else 8,
            rounds=_rounds(bench, SECONDS),
            objectives=["distill"],
            caches=[training.CACHES[1]],
            size=SIZE,
            workers=0 if bench.small else 1,
        )
    compared = found.pop("objectives")["distill"][training.CACHES[1]]
    return {**found, "objective": "distill", **compared, "peak_bytes": grown[0]}


PARTS: dict[str, Part] = {
    **{f"latency, k={k}": partial(latency, k=k) for k in SHOTS},
    "kv bytes": kv,
    "reading": read,
    "training": train,
}


def _warm(bench: Bench, run: Callable[[], int]) -> dict[str, int]:
    for _ in range(3):  # the second time computes the prefix apart, the third finds it
        tokens = run()
    with _peak(bench) as grown:
        run()
    return {"prompt_tokens": tokens, "peak_bytes": grown[0]}


def _rounds(bench: Bench, one: float) -> int:
    return 2 if bench.small else max(FEWEST, min(MOST, int(SECONDS / one)))


@contextmanager
def _peak(bench: Bench) -> Iterator[list[int]]:
    """Bytes that a block took at most, above those before it: of the card's memory, else of the process's."""
    if bench.device.type != "cuda":
        with resident_peak() as grown:
            yield grown
        return
    with memory.peak(bench.device) as found:
        yield (made := list[int]())
    made.append(found.bytes or 0)
