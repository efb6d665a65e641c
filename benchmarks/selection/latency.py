"""``python -m benchmarks.selection.latency``: latency where every query is shown demonstrations of its own, on pocket.

Each query is read, its k most similar demonstrations are chosen from a bank of 10^2 to 10^6, and one token is answered:
by AIM, whose fused tokens the bank holds, and by interleaved prompting, whose text and visual tokens are kept as
embeddings and whose prefixes go through the same cache. Both also run with a fixed list of demonstrations, which is a
hit of that cache for every query. All ways are timed in turns in one process, on the same pictures; each way gets them
as files of its own, so that it encodes them itself.

A bank's demonstrations are 32 real ones over and over, with other vectors (the real ones and noise) and keys: what is
timed is real work on real sizes. It lies in memory: about 6 GB for 10^6. The result of a bank's size is kept: the same
command resumes.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL.PngImagePlugin import PngInfo

from aim_backends.pocket.backend import PocketBackend
from aim_sdk import AIMPipeline, Demonstration, DemonstrationBank, FusedTokens, Query
from aim_sdk.backend.prefixes import DEFAULT_BYTES
from aim_sdk.bank.adding import POOLED
from aim_sdk.bank.entry import BankEntry
from aim_sdk.bank.store import MemoryStore, NewEntry
from aim_sdk.files.atomic import write_atomic
from aim_sdk.selection.base import Selector, chosen
from aim_sdk.selection.builtin import FirstSelector, ReadingSelector
from aim_sdk.support import figures
from aim_sdk.support.provenance import provenance
from benchmarks.speed.latency import images
from benchmarks.speed.measure import ASSETS, RESULTS, TODAY, in_turns, ratio, summary, write_result
from benchmarks.speed.ways import QUESTION, ZERO_SHOT

REAL: Final = 32
"""Demonstrations that are read."""
_NAMES: Final = ("cat", "dog", "fox", "owl", "bee", "ant", "cow", "pig")
_BATCH: Final = 100_000
"""Demonstrations that are added at once."""
_KEPT: Final = Path(__file__).parent / "work" / f"latency-{TODAY}"
OWN, FIXED = ", own demonstrations", ", the same demonstrations"
WAYS: Final = ("AIM" + OWN, "interleaved" + OWN, "AIM" + FIXED, "interleaved" + FIXED)
SELECTION: Final = "selection alone"


class SelectionBench:
    """A bank of a size, and every way to answer after k of its demonstrations.

    Args:
        backend: pocket; its prefix cache is emptied.
        size: demonstrations of the bank.
    """

    def __init__(self, backend: PocketBackend, size: int) -> None:
        backend.prefixes.resize(DEFAULT_BYTES)
        pipe, pictures = AIMPipeline(backend), images()
        shown = [Demonstration(next(pictures), QUESTION, f"a small {_NAMES[n % len(_NAMES)]}") for n in range(REAL)]
        pipe.bank.add(shown)
        self.pipe, self.bank = pipe, _grown(pipe, shown, size)
        opening = len(backend.injector.contexts([[]], pipe.prompt_format)[0])
        rows = backend.injector.contexts([[item] for item in shown], pipe.prompt_format)
        self._interleaved = [row[opening:] for row in rows]
        self.bank.view().centred(POOLED)

    def variant(self, way: str, k: int) -> Callable[[], None]:
        """What is timed: the next picture, by one way."""
        asked = self._queries(f"{len(self.bank)} {way} {k}")
        if way == ZERO_SHOT:
            return lambda: self._answer(next(asked), [])
        selector: Selector = FirstSelector() if way.endswith(FIXED) else ReadingSelector()
        made = self._rows if way.startswith("interleaved") else _fused

        def run() -> None:
            query = next(asked)
            (entries,) = chosen(self.bank, selector, [query], k)
            if way != SELECTION:
                self._answer(query, made(entries))

        return run

    def _queries(self, name: str) -> Iterator[Query]:
        """The same pictures for each way, none of them a demonstration's, as files that differ in a comment."""
        comment = PngInfo()
        comment.add_text("way", name)
        for picture in islice(images(), REAL, None):
            picture.save(file := io.BytesIO(), "png", pnginfo=comment)
            yield Query(file.getvalue(), QUESTION)

    def _answer(self, query: Query, context: Sequence[FusedTokens]) -> None:
        form = self.pipe.prompt_format
        self.pipe.backend.injector.generate([query], [context], prompt_format=form, max_new_tokens=1)

    def _rows(self, entries: Sequence[BankEntry]) -> list[FusedTokens]:
        return [FusedTokens(self._interleaved[int(e.key) % REAL], key=f"interleaved {e.key}") for e in entries]


def _fused(entries: Sequence[BankEntry]) -> list[FusedTokens]:
    return [entry.fused for entry in entries]


def _grown(pipe: AIMPipeline, shown: Sequence[Demonstration], size: int) -> DemonstrationBank:
    """A bank of this size: the real readings, moved at random by half of what tells them apart."""
    real, entries = pipe.bank.view().features(POOLED), list(pipe.bank.values())
    spread, rng = real.std(0) / 2, np.random.default_rng(0)
    store = MemoryStore()
    for start in range(0, size, _BATCH):
        places = np.arange(start, min(start + _BATCH, size))
        noise = rng.standard_normal((len(places), real.shape[1]), np.float32)
        vectors = real[places % REAL] + spread * noise
        made = [NewEntry(f"{n}", n, f"{n}", shown[n % REAL], entries[n % REAL].fused) for n in places.tolist()]
        store.add(made, features={POOLED: vectors})
    return DemonstrationBank(store, pipe.encoder.binding, pipe.encoder)


def measure(backend: PocketBackend, size: int, shots: Sequence[int], rounds: int) -> dict[str, Any]:
    """Every way at every k, in turns, with the ratios of each round."""
    bench = SelectionBench(backend, size)
    asked = [(ZERO_SHOT, 0), *((way, k) for k in shots if k <= size for way in (SELECTION, *WAYS))]
    variants = {name: bench.variant(*name) for name in asked}
    for run in variants.values():
        for _ in range(3):  # the second time computes a fixed prefix apart, the third finds it
            run()
    times = in_turns({str(name): run for name, run in variants.items()}, rounds)
    cells = []
    for way, k in asked:
        found = times[str((way, k))]
        cell = {"way": way, "shots": k, **summary(found), "of_zero_shot": ratio(found, times[str((ZERO_SHOT, 0))])}
        if way.startswith("interleaved"):
            of_aim = times[str((way.replace("interleaved", "AIM"), k))]
            cell["of_aim"] = ratio(found, of_aim)
        cells.append(cell)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"demonstrations": size, "rounds": rounds, "peak_bytes": peak, "cells": cells}


def plot(sizes: Sequence[Mapping[str, Any]], shots: int) -> bytes:
    """Latency over the bank's size at some shots, and over shots in the largest bank of all; as PNG."""
    figure, (left, right) = figures.panels(2)
    for number, way in enumerate((SELECTION, *WAYS)):
        options = {"color": f"C{number}", "capsize": 2, "label": way, **figures.style(number).options}
        cells = [(s["demonstrations"], c) for s in sizes for c in s["cells"] if c["way"] == way and c["shots"] == shots]
        _line(left, [place for place, _ in cells], [cell for _, cell in cells], options)
        cells = [(c["shots"], c) for c in sizes[-1]["cells"] if c["way"] == way]
        _line(right, [place for place, _ in cells], [cell for _, cell in cells], options)
    figures.title(left, f"k={shots}, over the bank's size")
    left.set(xscale="log", xlabel="demonstrations in the bank", ylabel="ms to the first token")
    figures.title(right, f"{sizes[-1]['demonstrations']:,} demonstrations")
    figures.shots_axis(right, [cell["shots"] for cell in sizes[-1]["cells"] if cell["shots"]])
    handles, labels = right.get_legend_handles_labels()
    figures.legend(figure, dict(zip(labels, handles, strict=True)))
    return figures.png(figure)


def _line(panel: Any, places: Sequence[int], cells: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> None:
    middle = [cell["median_ms"] for cell in cells]
    low = [cell["median_ms"] - cell["quartile_low_ms"] for cell in cells]
    high = [cell["quartile_high_ms"] - cell["median_ms"] for cell in cells]
    panel.errorbar(places, middle, [low, high], **options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--kept", type=Path, default=_KEPT, help="the folder of the sizes that are done")
    parser.add_argument("--result", type=Path, default=RESULTS / f"selection-latency-{TODAY}.json")
    parser.add_argument("--plot", type=Path, default=ASSETS / "selection-latency.png")
    options = parser.parse_args()
    backend, sizes = PocketBackend.from_pretrained(device="cpu"), []
    for size in options.sizes:
        file = options.kept / f"{size}-{options.rounds}-{'-'.join(map(str, options.shots))}.json"
        if not file.exists():
            made = {**measure(backend, size, options.shots, options.rounds), "measured": provenance("numpy")}
            write_atomic(file, json.dumps(made).encode())
        sizes.append(json.loads(file.read_bytes()))
        for cell in sizes[-1]["cells"]:
            of_aim = f"{cell['of_aim']['median']:6.2f} x AIM" if "of_aim" in cell else ""
            name = f"{size:>8,} {cell['way']:36} k={cell['shots']:<3}"
            print(f"{name} {cell['median_ms']:8.1f} ms {cell['of_zero_shot']['median']:6.2f} x zero-shot {of_aim}")
    shots = sorted(options.shots)[len(options.shots) // 2]
    write_atomic(options.plot, plot(sizes, shots))
    command = f"python -m benchmarks.selection.latency --rounds {options.rounds}"
    content = {"backbone": "pocket", "sizes": sizes, "command": command}
    print(write_result("selection-latency", content, packages=["numpy"], path=options.result))


if __name__ == "__main__":
    main()
