"""What each way of showing k demonstrations costs, on pocket: latency to the first token, context, KV cache.

All ways are timed in turns in one process, a new query image each time (its encoding is part of every latency). *Cold*
reads the demonstrations first; the other AIM rows find them in the bank. *Reused* rows find the context's keys and
values of an earlier query: AIM and text-only by the SDK's own prefix cache, interleaved images through the same cache,
with their text and visual tokens as the embeddings that are kept: a fair rival.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from aim_backends.pocket.backend import PocketBackend
from aim_sdk import AIMPipeline, Demonstration, FusedTokens, Query
from aim_sdk.types import Context
from benchmarks.speed.measure import ASSETS, in_turns, ratio, summary, write_result

SHOTS = (1, 2, 4, 8, 16, 32)
WAYS = ("AIM", "AIM, reused", "AIM, cold", "text-only", "text-only, reused", "interleaved", "interleaved, reused")
COLOURS = {"AIM": "tab:blue", "text-only": "tab:green", "interleaved": "tab:orange"}


def images() -> Iterator[Image.Image]:
    """Pictures that nobody has seen."""
    for seed in count():
        rng = np.random.default_rng(seed)
        yield Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8))


class LatencyBench:
    """One pipe with a bank of 32 demonstrations, and every way to answer after the first k of them."""

    def __init__(self) -> None:
        self.images = images()
        self.backend = PocketBackend.from_pretrained()
        self.pipe = AIMPipeline(self.backend)
        self.shown = [
            Demonstration(next(self.images), "What is this?", f"a small {name}")
            for name in ("cat dog fox owl bee ant cow pig hen rat bat elk emu yak ape eel " * 2).split()
        ]
        self.pipe.bank.add(self.shown)
        prefixes = self.backend.prefixes
        self.prefixes, self.bytes = prefixes, prefixes.info()["max_bytes"]
        self.contexts: dict[str, list[FusedTokens]] = {
            "AIM": [entry.fused for entry in self.pipe.bank.values()],
            "text-only": self._named("text", self.backend.reader.text_only(self.shown, prompt_format=self.form)),
            "interleaved": self._named("image", self._interleaved()),
        }

    @property
    def form(self) -> Any:
        return self.pipe.prompt_format

    def answer(self, context: Context) -> int:
        """One token after a context, for a new image; return the positions of the prompt."""
        query = Query(next(self.images), "What is this?")
        (made,) = self.backend.injector.generate([query], [context], prompt_format=self.form, max_new_tokens=1)
        return made.prompt_tokens

    def variant(self, way: str, k: int) -> Callable[[], int]:
        """What is timed."""
        kind, _, how = way.partition(", ")
        if how == "cold":
            return lambda: self.answer(self.pipe.encoder.encode(self._unseen(k)))
        context = self.contexts[kind][:k]
        if how == "reused":
            return lambda: self.answer(context)
        unnamed = [replace(item, key=None) for item in context]
        return lambda: self.answer(unnamed)

    def _unseen(self, k: int) -> list[Demonstration]:
        return [replace(item, image=next(self.images)) for item in self.shown[:k]]

    def _interleaved(self) -> list[FusedTokens]:
        opening = len(self.backend.injector.contexts([[]], self.form)[0])
        rows = self.backend.injector.contexts([[item] for item in self.shown], self.form)
        return [FusedTokens(row[opening:]) for row in rows]

    def _named(self, kind: str, made: Sequence[FusedTokens]) -> list[FusedTokens]:
        return [replace(tokens, key=f"{kind} {number}") for number, tokens in enumerate(made)]


def measure(rounds: int, shots: Sequence[int]) -> dict[str, Any]:
    """Every way at every k, and zero-shot, in turns."""
    bench = LatencyBench()
    spec = bench.backend.model.lm.spec
    kv = 2 * spec.layers * spec.key_value_heads * spec.head_size * bench.backend.dtype.itemsize
    variants = {("zero-shot", 0): lambda: bench.answer([])}
    variants |= {(way, k): bench.variant(way, k) for k in shots for way in WAYS}
    tokens = {}
    for name, run in variants.items():
        for _ in range(3):  # the second time computes the prefix apart, the third finds it
            tokens[name] = run()
    times = _in_turns({name: run for name, run in variants.items() if name[0] != "AIM, cold"}, rounds)
    times |= _in_turns(
        {n: run for n, run in variants.items() if n[0] in ("zero-shot", "AIM, cold")}, max(3, rounds // 5)
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


def _in_turns(variants: dict[tuple[str, int], Callable[[], int]], rounds: int) -> dict[tuple[str, int], dict[str, Any]]:
    """Latencies, and their ratios to zero-shot's of the same round."""
    times = in_turns({str(name): run for name, run in variants.items()}, rounds)
    zero = times[str(("zero-shot", 0))]
    return {name: {**summary(times[str(name)]), "of_zero_shot": ratio(times[str(name)], zero)} for name in variants}


def plot(cells: Sequence[dict[str, Any]], path: Path) -> None:
    """Latency over shots, and context tokens over shots."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    zero = next(cell for cell in cells if cell["way"] == "zero-shot")
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
