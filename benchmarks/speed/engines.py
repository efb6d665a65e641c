"""Pocket by torch and by llama.cpp, in turns: reading, answering after 8 demonstrations, each generated token, memory.

torch multiplies in float32; llama.cpp with the packaged file's blocks of 4 bits and the LoRA, keys and values in
float16. Memory is that of a fresh process: what is resident after loading, and after reading 8 demonstrations and one
answer.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final

import psutil

from aim_sdk import AIMPipeline, Demonstration, FusedTokens, Query
from benchmarks.speed.latency import images
from benchmarks.speed.measure import ratio, seconds, summary, write_result

ENGINES: Final[dict[str, dict[str, str]]] = {
    "torch": {"backend": "pocket"},
    "llama.cpp": {"backend": "llama.cpp", "model": "pocket"},
}
SHOTS: Final = 8
LONG: Final = 24
"""Tokens of a long answer; the first one belongs to the prompt."""
_NAMES: Final = ("cat", "dog", "fox", "owl", "bee", "ant", "cow", "pig")


def loaded(engine: str) -> AIMPipeline:
    """The pipeline of an engine, with an empty bank."""
    return AIMPipeline.from_pretrained(device="cpu", **ENGINES[engine])


def shown(seed: int = 0) -> list[Demonstration]:
    """Eight demonstrations."""
    pictures = islice(images(), SHOTS * seed, None)
    return [Demonstration(next(pictures), "What is it?", f"a small {name}") for name in _NAMES]


class Bench:
    """One engine with a bank of eight demonstrations."""

    def __init__(self, engine: str) -> None:
        self.pipe, self._pictures = loaded(engine), islice(images(), 1000, None)
        self.pipe.bank.add(shown())
        self._fused = [entry.fused for entry in self.pipe.bank.values()]

    def read(self) -> None:
        """Read eight demonstrations that nobody has seen."""
        seen = [Demonstration(next(self._pictures), "What is it?", f"a small {name}") for name in _NAMES]
        self.pipe.encoder.encode(seen)

    def first_token(self, shots: int, *, kept: bool) -> None:
        """Run one query with a new image up to its first token; ``kept``: the demonstrations' keys and values are."""
        context = [fused if kept else replace(fused, key=None) for fused in self._fused[:shots]]
        self._prompt(context, 1)

    def tokens(self) -> float:
        """Seconds of each further token."""
        prompt = self._prompt(self._fused, LONG)
        return seconds(lambda: [prompt.step([200 + n]) for n in range(LONG - 1)]) / (LONG - 1)

    def _prompt(self, context: list[FusedTokens], new_tokens: int) -> Any:
        query, injector = Query(next(self._pictures), "What is it?"), self.pipe.backend.injector
        prompt = injector.prefill([query], [context], self.pipe.prompt_format, new_tokens)  # type: ignore[attr-defined]
        int(prompt.logits.argmax())
        return prompt


def memory(engine: str) -> dict[str, float]:
    """Resident MiB of a fresh process."""
    command = [sys.executable, "-m", "benchmarks.speed.engines", "--memory", engine]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def own_memory(engine: str) -> dict[str, float]:
    """Resident MiB of this process, and what it is at most while it reads and answers."""
    pipe = loaded(engine)
    after = psutil.Process().memory_info().rss / 2**20
    pipe.bank.add(shown())
    pipe.generate([Query(next(islice(images(), 1000, None)), "What is it?")], shots=SHOTS, max_new_tokens=4)
    return {
        "loaded_mib": round(after, 1),
        "most_mib": round(_most() / 2**20, 1),
    }


def _most() -> int:
    """Bytes that were resident at most (Linux): of this program, not of the one that started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def measure(rounds: int) -> dict[str, Any]:
    """Every engine and every kind of work, in turns."""
    benches = {engine: Bench(engine) for engine in ENGINES}
    work: dict[str, Callable[[Bench], Any]] = {
        "read 8 demonstrations": Bench.read,
        "first token, zero-shot": partial(Bench.first_token, shots=0, kept=True),
        "first token after 8": partial(Bench.first_token, shots=SHOTS, kept=False),
        "first token after 8, kept": partial(Bench.first_token, shots=SHOTS, kept=True),
    }
    variants = {(name, engine): partial(work[name], benches[engine]) for name in work for engine in ENGINES}
    for run in [*variants.values()] * 2:  # a prefix is kept from its second time
        run()
    times = {name: list[float]() for name in [*variants, *(("each further token", engine) for engine in ENGINES)]}
    for _ in range(rounds):
        for name, run in variants.items():
            times[name].append(seconds(run))
        for engine, bench in benches.items():
            times["each further token", engine].append(bench.tokens())
    return {
        name: {
            **{engine: summary(times[name, engine]) for engine in ENGINES},
            "llama.cpp over torch": ratio(times[name, "llama.cpp"], times[name, "torch"]),
        }
        for name in [*work, "each further token"]
    }


def main() -> None:
    """Measure, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--memory", choices=ENGINES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory:
        print(json.dumps(own_memory(arguments.memory)))
        return
    found = {"shots": SHOTS, "rounds": arguments.rounds, "work": measure(arguments.rounds)}
    found["memory"] = {engine: memory(engine) for engine in ENGINES}
    for name, cells in found["work"].items():
        print(name, cells["llama.cpp over torch"], flush=True)
    print(found["memory"], write_result("engines", found, packages=["xllamacpp", "gguf", "tokenizers"]))


if __name__ == "__main__":
    main()
