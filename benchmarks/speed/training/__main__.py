"""Measures pocket and a small LLaVA, and writes the result: ``python -m benchmarks.speed.training``."""

from __future__ import annotations

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path

from aim_backends.llava import LlavaBackend
from aim_backends.pocket.backend import PocketBackend
from benchmarks.speed.measure import write_result
from benchmarks.speed.reading import small_llava
from benchmarks.speed.training.measure import OBJECTIVES, WARM, measure

NAMES = {"pocket": "pocket", "llava": "LLaVA-1.5, 336 px, 4 layers"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8, help=f"steps of a run; the first {WARM} are left out")
    parser.add_argument("--backbones", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--objectives", nargs="+", choices=OBJECTIVES, default=list(OBJECTIVES))
    parser.add_argument("--dry-run", action="store_true", help="write no result file")
    options = parser.parse_args()
    found = {}
    for backbone in options.backbones:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            if backbone == "pocket":
                load, batch_size = partial(PocketBackend.from_pretrained, None, device="cpu"), 4
            else:  # its demonstrations are long
                load, batch_size = partial(LlavaBackend.from_pretrained, small_llava(folder), device="cpu"), 2
            found[NAMES[backbone]] = measure(
                load,
                folder,
                batch_size=batch_size,
                count=options.steps,
                rounds=options.rounds,
                objectives=options.objectives,
            )
        for objective, caches in found[NAMES[backbone]]["objectives"].items():
            for cache, compared in caches.items():
                print(NAMES[backbone], objective, cache, compared["of_floor"], file=sys.stderr, flush=True)
    if not options.dry_run:
        print(write_result("training", {"models": found}, packages=["transformers", "accelerate", "pillow"]))


if __name__ == "__main__":
    main()
