"""``python -m benchmarks.pocket.few_shot``: AIM and its baselines on trials that nothing was trained for.

Everything goes through the public backend. The first 1, 2, 4, ... demonstrations of a trial make its contexts, so a
demonstration is read once, and every prompt goes on from the shorter one before it. Finished trials are kept: a run
that was cut goes on.
"""

import argparse
import json
import math
import platform
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Final

import torch

from aim_backends.pocket.backend import PocketBackend
from aim_sdk.backend.hashing import versions
from aim_sdk.projectors import CarrierProjector
from aim_sdk.projectors.base import Projector
from aim_sdk.reading.encoder import Encoder
from aim_sdk.support.machine import machine
from aim_sdk.types import Context, Demonstration, FusedTokens
from benchmarks.pocket.carrier import load_model
from benchmarks.pocket.config import RESULTS, SHIPPED, THREADS, WORK
from benchmarks.pocket.trials import SHOTS, Trial, Trials

MODES: Final = ("zero-shot", "text-only", "interleaved", "aim", "no-image")
_TRIALS_A_CHUNK: Final = 10

Hits = dict[str, bool]  # "mode k" -> answered rightly
Key = tuple[str, int, int]  # task, seed, number


class Judge:
    """Answers trials in every mode and with every number of demonstrations."""

    def __init__(
        self, backend: PocketBackend, projector: Projector, modes: Sequence[str], shots: Sequence[int]
    ) -> None:
        self._backend, self._format = backend, backend.default_format
        self._encoder = Encoder(backend, projector, self._format)
        self._modes, self._shots = modes, sorted(shots)
        (opening,) = backend.injector.contexts([[]], self._format)
        self._opening = len(opening)

    def judge(self, trial: Trial) -> Hits:
        """Say in which modes, after how many demonstrations, the right choice is the likeliest."""
        hits: Hits = {}
        shown = trial.demonstrations[: max(self._shots)]
        for mode in self._modes:
            if mode == "zero-shot":
                hits["zero-shot 0"] = self._answer(trial, []) == trial.right
                continue
            context = self.context(mode, shown)
            # seen once: each prefix is then kept when it comes, and the next goes on from it
            self._backend.prefixes.shared(self._format, [context])
            for k in self._shots:
                if k:
                    hits[f"{mode} {k}"] = self._answer(trial, context[:k]) == trial.right
        self._backend.prefixes.resize(1 << 28)
        return hits

    def context(self, mode: str, shown: Sequence[Demonstration]) -> list[FusedTokens]:
        """Return what stands for each demonstration, with keys that hold for this trial."""
        if mode == "text-only":
            made = self._backend.reader.text_only(shown, prompt_format=self._format)
        elif mode == "interleaved":  # the embeddings of a whole demonstration, visual tokens included
            made = [
                FusedTokens(row[self._opening :])
                for row in self._backend.injector.contexts([[item] for item in shown], self._format)
            ]
        else:
            made = self._encoder.encode(shown, with_images=mode == "aim")
        return [replace(tokens, key=f"{mode} {place}") for place, tokens in enumerate(made)]

    def _answer(self, trial: Trial, context: Context) -> int:
        ended = [f"{choice}\n" for choice in trial.choices]
        scores = self._backend.injector.score(trial.query, context, ended, prompt_format=self._format)
        return max(range(len(scores)), key=lambda index: sum(scores[index]))


def summary(kept: dict[Key, Hits]) -> dict[str, dict[str, dict[str, float]]]:
    """Return task -> mode and k -> mean with its standard errors.

    ``se`` is the binomial one over all trials; ``se_seeds`` the spread of the seeds' means over the root of their
    number, where there are several.
    """
    table: dict[str, dict[str, dict[str, float]]] = {}
    for task in dict.fromkeys(key[0] for key in kept):
        own = {key: hits for key, hits in kept.items() if key[0] == task}
        cells = dict.fromkeys(cell for hits in own.values() for cell in hits)
        table[task] = {cell: _cell({key: hits[cell] for key, hits in own.items()}) for cell in cells}
    return table


def gains(kept: dict[Key, Hits]) -> dict[str, dict[str, dict[str, float]]]:
    """Return task -> mode and k -> how much more often AIM is right at that k, paired by trial, with standard error."""
    table: dict[str, dict[str, dict[str, float]]] = {}
    for task in dict.fromkeys(key[0] for key in kept):
        trials = [hits for key, hits in kept.items() if key[0] == task]
        pairs = {cell: f"aim {cell.split()[1]}" for cell in trials[0] if not cell.startswith("aim")}
        table[task] = {
            cell: _gain([hits[aim] - hits[cell] for hits in trials]) for cell, aim in pairs.items() if aim in trials[0]
        }
    return table


def _gain(gained: Sequence[int]) -> dict[str, float]:
    se = stdev(gained) / math.sqrt(len(gained)) if len(gained) > 1 else 0.0
    return {"mean": round(mean(gained), 4), "se": round(se, 4), "n": len(gained)}


def _cell(hits: dict[Key, bool]) -> dict[str, float]:
    number, share = len(hits), sum(hits.values()) / len(hits)
    out = {"mean": share, "se": math.sqrt(share * (1 - share) / number), "n": number}
    seeds = dict.fromkeys(key[1] for key in hits)
    if len(seeds) > 1:
        groups = [[hit for key, hit in hits.items() if key[1] == seed] for seed in seeds]
        out["se_seeds"] = stdev([mean(group) for group in groups]) / math.sqrt(len(groups))
    return {name: round(value, 4) for name, value in out.items()}


def run(options: argparse.Namespace) -> None:
    """Judge the trials that are missing; write the summary after every chunk."""
    torch.set_num_threads(THREADS)
    backend = PocketBackend(load_model(options.backbone))
    projector = _projector(options.projector, backend).attach(backend.vocabulary)
    judge, trials = Judge(backend, projector, options.modes, options.shots), Trials(backend.model)
    path = WORK / f"few-shot-{options.name}.jsonl"
    kept = _read(path)
    wanted = [
        (task, seed, number)
        for number, seed, task in product(range(options.n), options.seeds, options.tasks or trials.tasks)
    ]
    missing = [key for key in wanted if key not in kept]
    started = time.monotonic()
    for done, key in enumerate(missing, 1):
        kept[key] = judge.judge(trials.make(*key))
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps([*key, kept[key]]) + "\n")
        if done % _TRIALS_A_CHUNK == 0 or done == len(missing):
            left = (time.monotonic() - started) / done * (len(missing) - done)
            print(f"{done}/{len(missing)} trials, {left / 60:.0f} min left", flush=True)
            _write(options, {key: kept[key] for key in wanted if key in kept})


def _projector(name: str, backend: PocketBackend) -> Projector:
    if name == "shipped":
        return backend.default_projector()
    if name == "training-free":
        return CarrierProjector.untrained(backend.vocabulary)
    return Projector.from_pretrained(name)


def _read(path: Path) -> dict[Key, Hits]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {(task, seed, number): hits for task, seed, number, hits in map(json.loads, lines)}


def _write(options: argparse.Namespace, kept: dict[Key, Hits]) -> None:
    result: dict[str, Any] = {
        "what": "pocket, few-shot: held-out concepts, drawing style, labels and answer styles; easy-VQA's test images",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "backbone": options.backbone.name,
        "projector": options.projector,
        "seeds": options.seeds,
        "trials_a_seed_and_task": options.n,
        "machine": machine(),
        "versions": {"python": platform.python_version(), **versions("aim-icl", "torch", "tokenizers")},
        "scores": summary(kept),
        "gains": gains(kept),
    }
    path = RESULTS / f"pocket-few-shot-{options.name}-{datetime.now(UTC):%Y-%m-%d}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Evaluate; ``--n 500`` with three seeds is the whole plan, ``--n 30 --shots 2 8`` a small one."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--name", default="whole", help="names the result file")
    parser.add_argument("--n", type=int, default=500, help="trials a seed and task")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--tasks", nargs="+", help="default: all")
    parser.add_argument("--shots", type=int, nargs="+", default=list(SHOTS))
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=MODES)
    parser.add_argument(
        "--backbone", type=Path, default=SHIPPED, help="folder of connector.safetensors and lora.safetensors"
    )
    parser.add_argument(
        "--projector", default="shipped", help="shipped, training-free (a carrier), or the folder of a saved one"
    )
    run(parser.parse_args())


if __name__ == "__main__":
    main()
