"""Seconds that a fresh process takes: imports, commands, and pocket until it can answer."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

from benchmarks.speed.measure import write_result

_MAIN = "import sys; sys.argv[1:] = {!r}; from aim_sdk.cli import main; main()"
PROGRAMS = {
    "python": "pass",
    "import aim_sdk": "import aim_sdk",
    "aim-icl --version": _MAIN.format(["--version"]),
    "aim-icl bank list (no bank)": _MAIN.format(["bank", "list", "no-bank"]),
    "import torch": "import torch",
    "import torch, transformers' Auto classes": "import torch; from transformers import AutoModelForImageTextToText",
    "pocket, loaded": "from aim_sdk import AIMPipeline; AIMPipeline.from_pretrained('pocket')",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    times: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for _ in range(options.rounds):
        for name, program in PROGRAMS.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", program], check=False, capture_output=True)
            times[name].append(time.perf_counter() - started)
    medians = {name: round(statistics.median(found), 3) for name, found in times.items()}
    for name, median in medians.items():
        print(f"{name:45} {median:7.3f} s")
    print(write_result("startup", {"rounds": options.rounds, "median_seconds": medians, "seconds": times}))


if __name__ == "__main__":
    main()
