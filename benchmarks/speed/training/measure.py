"""Floors and trainer in turns, each objective with empty caches and with full ones."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from accelerate import Accelerator

from aim_sdk.projectors import untrained
from aim_sdk.reading.encoder import Encoder
from aim_sdk.training import TrainingConfig, starting, train, trainer
from aim_sdk.training.data import training_batches
from aim_sdk.training.forward import Forward
from benchmarks.speed.measure import ratio, seconds
from benchmarks.speed.training.capture import bare_of, captured
from benchmarks.speed.training.corpus import IMAGES, corpus
from benchmarks.speed.training.floor import Step, floor

WARM: Final = 2
"""First steps that are left out."""
AHEAD: Final = 3
"""Batches that a run has prepared or prepares after the one that it computes."""
OBJECTIVES: Final = ("lm", "distill")
CACHES: Final = ("empty caches", "all cached")


def measure(
    load: Callable[[], Any],
    folder: Path,
    *,
    batch_size: int,
    count: int,
    rounds: int,
    objectives: Sequence[str] = OBJECTIVES,
    caches: Sequence[str] = CACHES,
    size: tuple[int, int] = (336, 336),
    workers: int = 1,
) -> dict[str, Any]:
    """Measure one backbone.

    Args:
        load: gives the backend; called before each run. What it has kept of images would make later runs faster.
        folder: where corpus and runs are.
        batch_size: episodes of a step.
        count: steps of a run, the first of which are left out.
        rounds: how often each floor and each run is measured; two at least.
        objectives: those of one name alone.
        caches: those of one kind alone.
        size: of the images.
        workers: processes that read the corpus.
    """
    (images := folder / "corpus").mkdir()
    loaded = load()
    config = TrainingConfig(
        output=folder / "run",
        backend=loaded.name,
        device=str(loaded.device),
        corpus={"path": corpus(images, documents := batch_size * (count + AHEAD), size=size)},  # type: ignore[arg-type]
        episodes={"shots": (IMAGES - 1, IMAGES - 1), "text": "What is this?", "labels": 0, "styles": 0},  # type: ignore[arg-type]
        objective=objectives[-1],  # type: ignore[arg-type]
        evaluation={"every": 0},  # type: ignore[arg-type]
        steps=count,
        batch_size=batch_size,
        workers=workers,
        log_every=1,
    )
    projector = untrained(config.projector.kind, loaded.vocabulary, layers=config.projector.layers)
    projector = projector.float().requires_grad_()
    steps = _steps(loaded, Encoder(loaded, projector, loaded.default_format), config, objectives)
    full = folder / "full"
    with using(load):  # a whole epoch: what it leaves on disk is all that the measured runs will ask for
        train(config.model_copy(update={"output": full, "steps": count + AHEAD}), show=False)
    bare, measured = bare_of(loaded), steps[WARM:]
    variants: dict[tuple[str, str, str], Callable[[], float]] = {}
    for objective in objectives:
        named = config.model_validate({**config.model_dump(), "objective": objective})
        for cache in caches:
            ready = cache == CACHES[1]

            def bare_steps(objective: str = objective, ready: bool = ready) -> float:
                return seconds(lambda: floor(bare, projector, measured, objective, config, ready=ready))

            def our_steps(named: TrainingConfig = named, kept: Path | None = full if ready else None) -> float:
                with using(load):
                    return ours(named, steps, kept)

            variants[objective, cache, "floor"] = bare_steps
            variants[objective, cache, "trainer"] = our_steps
    floor(bare, projector, measured[:1], objectives[-1], config, ready=False)  # warm
    times: dict[tuple[str, str, str], list[float]] = {name: [] for name in variants}
    loads = []
    for number in range(rounds):
        loads.append([round(load, 2) for load in os.getloadavg()])
        for name, run in variants.items():
            times[name].append(run())
            told = f"{loaded.name}, round {number + 1}, {', '.join(name)}: {times[name][-1]:.2f} s"
            print(told, file=sys.stderr, flush=True)
    read, answered = sum(step.read_tokens for step in measured), sum(step.answer_tokens for step in measured)
    return {
        "documents": documents,
        "shots": IMAGES - 1,
        "batch_size": batch_size,
        "steps_measured": len(measured),
        "steps_left_out": WARM,
        "tokens": {"read": read, "fused_and_answers": answered},
        "rounds": rounds,
        "load_average_before_each_round": loads,
        "objectives": {
            objective: {
                cache: _compared(times, objective, cache, answered + (cache == CACHES[0]) * read) for cache in caches
            }
            for objective in objectives
        },
    }


@contextmanager
def using(load: Callable[[], Any]) -> Iterator[None]:
    """Inside the block, a run gets this backend, and does not prove that it stays frozen: neither is timed."""

    class Loaded:
        from_pretrained = staticmethod(lambda *given, **named: load())

    with (
        patch.object(starting, "get_backend", lambda name: Loaded),
        patch.object(trainer, "checksum", lambda modules: ""),
    ):
        yield


def ours(config: TrainingConfig, steps: Sequence[Step], kept: Path | None) -> float:
    """Seconds of the steps that are measured, by the run's own log; ``kept``: a run whose caches it takes over."""
    for cache in ("readings", "targets"):
        if kept is not None and (kept / cache).exists():
            shutil.copytree(kept / cache, config.output / cache)
    train(config, show=False)
    lines = [json.loads(line) for line in (config.output / "log.jsonl").read_text().splitlines()]
    shutil.rmtree(config.output)
    spent = 0.0
    for line, step in list(zip(lines, steps, strict=True))[WARM:]:
        spent += (step.answer_tokens + (step.read_tokens if kept is None else 0)) / line["tokens_per_second"]
    return spent


def _steps(loaded: Any, encoder: Encoder, config: TrainingConfig, objectives: Sequence[str]) -> list[Step]:
    """The steps that a run of these settings takes."""
    batches = islice(training_batches(config.model_copy(update={"workers": 0})), config.steps)
    with ExitStack() as stack:
        unkept = config.model_copy(update={"reading_cache_gb": 0.0})
        accelerator = Accelerator(cpu=config.device == "cpu")
        teaching = starting.teaching(unkept, encoder, accelerator, stack) if "distill" in objectives else None
        forward = Forward(encoder, reading_tokens=config.reading_tokens, teaching=teaching)
        return [captured(bare_of(loaded), forward, batch, objectives, config) for batch in batches]


def _compared(
    times: dict[tuple[str, str, str], list[float]], objective: str, cache: str, tokens: int
) -> dict[str, Any]:
    both = {who: times[objective, cache, who] for who in ("floor", "trainer")}
    return {
        "seconds": {who: [round(value, 3) for value in found] for who, found in both.items()},
        "tokens_per_second": {who: round(tokens / statistics.median(found), 1) for who, found in both.items()},
        "of_floor_by_round": [round(a / b, 4) for a, b in zip(both["floor"], both["trainer"], strict=True)],
        "of_floor": ratio(both["floor"], both["trainer"]),
    }
