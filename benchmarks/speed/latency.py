"""What each way of showing k demonstrations costs, on pocket: latency to the first token, context, KV cache.

All ways are timed in turns in one process, a new query image each time (its encoding is part of every latency). *Cold*
reads the demonstrations first; the other AIM rows find them in the bank. *Reused* rows find the context's keys and
values of an earlier query: AIM and text-only by the SDK's own prefix cache, interleaved images through the same cache,
with their text and visual tokens as the embeddings that are kept: a fair rival.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from aim_backends.pocket.backend import PocketBackend
from aim_sdk import AIMPipeline, Demonstration, FusedTokens
from benchmarks.speed.measure import ASSETS, write_result
from benchmarks.speed.ways import QUESTION, ZERO_SHOT, Ways, computed_whole, of_zero_shot, reusable

SHOTS = (1, 2, 4, 8, 16, 32)
WAYS = ("AIM", "AIM, reused", "AIM, cold", "text-only", "text-only, reused", "interleaved", "interleaved, reused")
COLOURS = {"AIM": "tab:blue", "text-only": "tab:green", "interleaved": "tab:orange"}


def images() -> Iterator[Image.Image]:
    """Pictures that nobody has seen."""
    for seed in count():
        rng = np.random.default_rng(seed)
        yield Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8))


class LatencyBench(Ways):
    """A bank of 32 demonstrations, and every way to answer after the first k of them."""

    def __init__(self) -> None:
        backend, pictures = PocketBackend.from_pretrained(), images()
        self.pipe, self.prefixes = AIMPipeline(backend), backend.prefixes
        self.shown = [
            Demonstration(next(pictures), QUESTION, f"a small {name}")
            for name in ("cat dog fox owl bee ant cow pig hen rat bat elk emu yak ape eel " * 2).split()
        ]
        self.pipe.bank.add(self.shown)
        form = self.pipe.prompt_format
        opening = len(backend.injector.contexts([[]], form)[0])
        rows = backend.injector.contexts([[item] for item in self.shown], form)
        kinds: Mapping[str, Sequence[FusedTokens]] = {
            "AIM": [entry.fused for entry in self.pipe.bank.values()],
            "text-only": backend.reader.text_only(self.shown, prompt_format=form),
            "interleaved": [FusedTokens(row[opening:]) for row in rows],
        }
        whole = {kind: computed_whole(made) for kind, made in kinds.items()}
        reused = {f"{kind}, reused": reusable(kind, made) for kind, made in kinds.items()}
        super().__init__(backend, form, pictures, whole | reused)

    def variant(self, way: str, k: int) -> Callable[[], int]:
        if way == "AIM, cold":
            return lambda: self.answer(self.pipe.encoder.encode(self._unseen(k)))
        return super().variant(way, k)

    def _unseen(self, k: int) -> list[Demonstration]:
        return [replace(item, image=next(self.images)) for item in self.shown[:k]]


def measure(rounds: int, shots: Sequence[int]) -> dict[str, Any]:
    """Every way at every k, and zero-shot, in turns."""
    bench = LatencyBench()
    backend: Any = bench.backend
    spec = backend.model.lm.spec
    kv = 2 * spec.layers * spec.key_value_heads * spec.head_size * backend.dtype.itemsize
    variants = {(ZERO_SHOT, 0): bench.variant(ZERO_SHOT, 0)}
    variants |= {(way, k): bench.variant(way, k) for k in shots for way in WAYS}
    tokens = {}
    for name, run in variants.items():
        for _ in range(3):  # the second time computes the prefix apart, the third finds it
            tokens[name] = run()
    times = of_zero_shot({name: run for name, run in variants.items() if name[0] != "AIM, cold"}, rounds)
    times |= of_zero_shot(
        {n: run for n, run in variants.items() if n[0] in (ZERO_SHOT, "AIM, cold")}, max(3, rounds // 5)
    )
    return {
        "rounds": rounds,
        "prefixes": bench.prefixes.info(),
        "cells": [
            {
                "way": way,
                "shots": k,
                "prompt_tokens": tokens[way, k],
                "kv_bytes": tokens[way, k] * kv,
                **times[way, k],
            }
            for way, k in variants
        ],
    }


def plot(cells: Sequence[dict[str, Any]], path: Path) -> None:
    """Latency over shots, and context tokens over shots."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    zero = next(cell for cell in cells if cell["way"] == ZERO_SHOT)
    left.axhline(zero["median_ms"], color="grey", linewidth=0.8)
    left.annotate("zero-shot", (32, 0.93 * zero["median_ms"]), fontsize=7, ha="right", va="top", color="grey")
    for way in WAYS:
        kind, _, how = way.partition(", ")
        row = [cell for cell in cells if cell["way"] == way]
        middle = np.array([cell["median_ms"] for cell in row])
        spread = [middle - [c["quartile_low_ms"] for c in row], np.array([c["quartile_high_ms"] for c in row]) - middle]
        style = {"": "-", "reused": "--", "cold": ":"}[how]
        shots = [cell["shots"] for cell in row]
        left.errorbar(shots, middle, spread, color=COLOURS[kind], linestyle=style, marker=".", capsize=2, label=way)
        if not how:
            right.plot(shots, [cell["prompt_tokens"] for cell in row], color=COLOURS[kind], marker=".", label=way)
    left.set(xscale="log", yscale="log", xlabel="shots k", ylabel="ms to the first token", title="latency, one query")
    right.set(xscale="log", xlabel="shots k", title="context tokens")
    left.set_yticks(ticks := [200, 500, 1000, 2000, 5000], list(map(str, ticks)))
    for axes in (left, right):
        axes.set_xticks(SHOTS, list(map(str, SHOTS)))
        axes.minorticks_off()
        axes.legend(fontsize=7)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    options = parser.parse_args()
    found = measure(options.rounds, SHOTS)
    for cell in found["cells"]:
        times = f"{cell['median_ms']:8.1f} ms  {cell['of_zero_shot']['median']:6.2f} x zero-shot"
        print(f"{cell['way']:22} k={cell['shots']:<3} {times}")
    plot(found["cells"], ASSETS / "speed-latency.png")
    print(write_result("latency", {"backbone": "pocket", **found}))


if __name__ == "__main__":
    main()
