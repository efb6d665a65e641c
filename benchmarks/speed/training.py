"""Tokens that the trainer's steps learn from a second, over their floor: what the same batches cost without the SDK.

The floor has its inputs ready (decoded, preprocessed, tokenised, padded) and computes what must be computed: the bare
forward that reads the demonstrations, the projector, the bare forward and backward with fused embeddings and
cross-entropy on the answers, and AdamW's step. Ours is `aim_sdk.training.train` on a corpus on disk, its pace as
its own log tells it, at the default settings: (a) with an empty cache of readings, (b) with all readings on disk, as
from the second epoch on; there the floor does not read.

The first steps, in which the worker starts, are left out; after the last one there are as many documents as the run
prepares ahead, so that this work is in what is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from aim_backends.llava import LlavaBackend
from aim_backends.pocket.backend import PocketBackend
from aim_backends.pocket.vision import preprocess
from aim_sdk.backend.registry import get_backend
from aim_sdk.projectors import untrained
from aim_sdk.projectors.base import Projector
from aim_sdk.projectors.batch import ReadingBatch
from aim_sdk.reading.cache import ReadingCache
from aim_sdk.reading.encoder import Encoder
from aim_sdk.training import TrainingConfig, optimizer, train
from aim_sdk.training.data import EpisodeBatch, training_batches
from aim_sdk.training.forward import Forward
from aim_sdk.types import Reading
from benchmarks.pocket.prompts import question_segment
from benchmarks.speed.measure import ratio, seconds, write_result
from benchmarks.speed.reading import small_llava

WARM = 2
"""First steps that are left out."""
AHEAD = 3
"""Batches that a run has prepared or prepares after the one that it computes."""
IMAGES = 4

Places = tuple[Tensor, Tensor]
"""Rows and columns."""
Answering = tuple[Any, Tensor, Tensor, Tensor]
"""A forward's inputs, the fused tokens' places in it, the places that the LM head sees, and the tokens after them."""


@dataclass
class Step:
    """What one step computes, with all its inputs ready."""

    reads: list[tuple[Any, Any]]
    """Each forward of the reader: its inputs, and its readings' places by row."""
    order: list[int]
    """Of each reading in the projector's batch, its number among those read."""
    batch: ReadingBatch
    inputs: Any
    """The answering forward's."""
    fused: Places
    """The fused tokens' places in the answering forward, of all episodes one after the other."""
    rows: Places
    """The fused tokens in what the projector gives."""
    places: Places
    """What the LM head sees."""
    wanted: Tensor
    read_tokens: int
    """Text tokens that are read, as the trainer counts them: without the visual ones."""
    answer_tokens: int
    """Fused tokens and the answers' tokens."""


class Pocket:
    """Trunk, connector and LM on ready pixels and embeddings."""

    def __init__(self, backend: PocketBackend) -> None:
        self.model, self.given = backend.model, list[tuple[Tensor, Any]]()
        self.noting = self.model.lm.register_forward_pre_hook(self._note, with_kwargs=True)

    def _note(self, module: Any, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> None:
        self.given.append((args[0].detach(), kwargs.get("attention_mask")))

    def read_inputs(self, items: Sequence[Any], readings: Sequence[Reading]) -> tuple[Any, Any]:
        visual = [(row, 1 + reading.image_position + n) for row, reading in enumerate(readings) for n in range(16)]
        places = [
            [1 + n + (16 if n >= reading.image_position else 0) for n in range(len(reading))] for reading in readings
        ]
        pixels = [preprocess(item.image) for item in items]
        return (*self.given.pop(), pixels, torch.tensor(visual).T), places

    def read(self, inputs: Any) -> Tensor:
        embedded, mask, pixels, (rows, columns) = inputs
        visual = self.model.encode_pixels(pixels).flatten(0, 1)
        hidden: Tensor = self.model.lm(embedded.index_put((rows, columns), visual), attention_mask=mask)
        return hidden

    def answer_inputs(self, episodes: Sequence[Any], fused: Sequence[int], answers: Sequence[int]) -> Answering:
        embedded, _ = self.given.pop()
        befores = [len(self.model.tokenize(question_segment(episode.query.text))) for episode in episodes]
        afters = len(self.model.tokenize("\nAnswer:"))
        starts = [1 + count + before for count, before in zip(fused, befores, strict=True)]
        visual = [(row, start + n) for row, start in enumerate(starts) for n in range(16)]
        lengths = [start + 16 + afters + answer - 1 for start, answer in zip(starts, answers, strict=True)]
        assert max(lengths) == embedded.shape[1]
        places = [(row, lengths[row] - answers[row] + n) for row in range(len(starts)) for n in range(answers[row])]
        slots = [(row, 1 + n) for row, count in enumerate(fused) for n in range(count)]
        pixels = [preprocess(episode.query.image) for episode in episodes]
        ids = [index for episode in episodes for index in self.model.tokenize(f" {episode.answer}\n")]
        inputs = (embedded, pixels, torch.tensor(visual).T)
        return inputs, torch.tensor(slots).T, torch.tensor(places).T, torch.tensor(ids)

    def answer(self, step: Step, fused: Tensor) -> Tensor:
        embedded, pixels, (rows, columns) = step.inputs
        visual = self.model.encode_pixels(pixels).flatten(0, 1)
        embedded = embedded.index_put((rows, columns), visual).index_put(step.fused, fused)
        logits: Tensor = self.model.lm.head(self.model.lm(embedded)[step.places[0], step.places[1]])
        return logits


class LlavaFloor:
    """The model on the processor's ready outputs."""

    def __init__(self, backend: LlavaBackend) -> None:
        self.backend, self.model, self.given = backend, backend.backbone.model, list[dict[str, Any]]()
        self.noting = self.model.register_forward_pre_hook(self._note, with_kwargs=True)

    def _note(self, module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        names = ("input_ids", "attention_mask", "pixel_values")
        self.given.append({name: kwargs[name] for name in names})

    def read_inputs(self, items: Sequence[Any], readings: Sequence[Reading]) -> tuple[Any, Any]:
        inputs = self.given.pop()
        image = self.model.config.image_token_index
        text = (inputs["input_ids"] != image) & (inputs["attention_mask"] == 1)
        places = [row.nonzero()[-len(r) :, 0].tolist() for row, r in zip(text, readings, strict=True)]
        return inputs, places

    def read(self, inputs: Any) -> Tensor:
        hidden: Tensor = self.model.model(**inputs, use_cache=False).last_hidden_state
        self.model.lm_head(hidden[:, -1:])
        return hidden

    def answer_inputs(self, episodes: Sequence[Any], fused: Sequence[int], answers: Sequence[int]) -> Answering:
        inputs = self.given.pop()
        slots = (inputs["input_ids"] == self.backend.slot).nonzero().T
        lengths = inputs["attention_mask"].sum(1).tolist()
        places = torch.tensor(
            [(row, end - answers[row] + n) for row, end in enumerate(lengths) for n in range(answers[row])]
        ).T
        wanted = inputs["input_ids"][places[0], places[1]]
        return inputs, slots, torch.stack([places[0], places[1] - 1]), wanted

    def answer(self, step: Step, fused: Tensor) -> Tensor:
        def write(module: Any, args: Any, output: Tensor) -> Tensor:
            return output.index_put(step.fused, fused)

        handle = self.model.get_input_embeddings().register_forward_hook(write)
        hidden = self.model.model(**step.inputs, use_cache=False).last_hidden_state
        handle.remove()
        logits: Tensor = self.model.lm_head(hidden[step.places[0], step.places[1]])
        return logits


Bare = Pocket | LlavaFloor


def corpus(folder: Path, documents: int, seed: int = 0) -> Path:
    """Documents of four PNG images (336 pixels, noise and a shape) and sentences."""
    rng = np.random.default_rng(seed)
    words = ["a", "small", "red", "thing", "on", "top", "of", "the", "wooden", "table", "where", "it", "was", "left"]
    lines = []
    for document in range(documents):
        pairs = []
        for number in range(IMAGES):
            image = Image.fromarray(rng.integers(0, 256, (336, 336, 3), np.uint8))
            left, top = (int(value) for value in rng.integers(20, 150, 2))
            color = tuple(int(value) for value in rng.integers(0, 256, 3))
            ImageDraw.Draw(image).ellipse((left, top, left + 150, top + 120), fill=color)
            image.save(folder / (name := f"{document}-{number}.png"))
            sentence = " ".join(rng.choice(words, int(rng.integers(6, 20)))).capitalize() + "."
            pairs.append({"image": name, "answer": sentence})
        lines.append(json.dumps({"pairs": pairs}))
    (path := folder / "documents.jsonl").write_text("\n".join(lines) + "\n")
    return path


def prepared(
    bare: Bare, encoder: Encoder, batches: Sequence[EpisodeBatch], cache: ReadingCache, reading_tokens: int
) -> list[Step]:
    """Run the batches once, and keep what the backbone was given; the readings go to ``cache``."""
    forward, steps = Forward(encoder, reading_tokens=reading_tokens), []
    for batch in batches:
        work, reads, read = forward.prepare(batch.episodes), [], dict[str, Reading]()
        if work.dropped:
            raise SystemExit(f"the corpus cannot be used: {work.dropped}")
        items = {
            name: item
            for episode, names in zip(work.episodes, work.keys, strict=True)
            for name, item in zip(names, episode.demonstrations, strict=True)
        }
        for part in work.reads:
            found = {work.names[place]: reading for place, reading in encoder.run([part])}
            reads.append(bare.read_inputs([items[name] for name in found], list(found.values())))
            read |= found
        for name, reading in read.items():
            cache.add(name, reading.kept())
        names, order = list(items), list(read)
        readings = [read[name] for name in names]
        fused = dict(zip(names, encoder.projector.project(readings), strict=True))
        contexts = [[fused[name] for name in keys] for keys in work.keys]
        log_probs = [row.detach() for row in forward.log_probs(work.answers, contexts)]
        counts = [sum(map(len, context)) for context in contexts]
        inputs, slots, places, wanted = bare.answer_inputs(work.episodes, counts, list(map(len, log_probs)))
        rows = [(names.index(name), n) for keys in work.keys for name in keys for n in range(len(fused[name]))]
        step = Step(
            reads=reads,
            order=[order.index(name) for name in names],
            batch=ReadingBatch.collate(readings),
            inputs=inputs,
            fused=(slots[0], slots[1]),
            rows=(torch.tensor(rows)[:, 0], torch.tensor(rows)[:, 1]),
            places=(places[0], places[1]),
            wanted=wanted,
            read_tokens=sum(map(len, readings)),
            answer_tokens=sum(counts) + sum(map(len, log_probs)),
        )
        # Both compute the same loss.
        torch.testing.assert_close(
            loss_of(bare, encoder.projector, step, read=True).detach(), -torch.cat(log_probs).mean(), rtol=1e-4, atol=0
        )
        bare.given.clear()
        steps.append(step)
    bare.noting.remove()
    return steps


def loss_of(bare: Bare, projector: Projector, step: Step, *, read: bool) -> Tensor:
    """One step's loss by as little as can be; without ``read`` its readings are ready."""
    batch = step.batch
    if read:
        with torch.no_grad():
            found = []
            for inputs, places in step.reads:
                hidden = bare.read(inputs)
                found += [hidden[row, where] for row, where in enumerate(places)]
            batch = replace(batch, hidden=pad_sequence([found[number] for number in step.order], batch_first=True))
    fused = projector(batch)[step.rows]
    return F.cross_entropy(bare.answer(step, fused).float(), step.wanted)


def floor(bare: Bare, projector: Projector, steps: Sequence[Step], config: TrainingConfig, *, read: bool) -> None:
    """All the steps, with nothing round them."""
    learner = optimizer.build(projector, config.optimizer)
    for step in steps:
        loss_of(bare, projector, step, read=read).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(projector.parameters(), config.optimizer.clip)
        learner.step()
        learner.zero_grad()


def ours(config: TrainingConfig, steps: Sequence[Step], readings: Path | None) -> float:
    """Seconds of the steps that are measured, by the run's own log; ``readings``: what its cache holds."""
    if readings is not None:
        shutil.copytree(readings, config.output / "readings")
    train(config, show=False)
    lines = [json.loads(line) for line in (config.output / "log.jsonl").read_text().splitlines()]
    shutil.rmtree(config.output)
    spent = 0.0
    for line, step in list(zip(lines, steps, strict=True))[WARM:]:
        spent += (step.answer_tokens + (0 if readings else step.read_tokens)) / line["tokens_per_second"]
    return spent


def measure(backend: str, model: str | None, folder: Path, batch_size: int, count: int, rounds: int) -> dict[str, Any]:
    """Both floors and both runs in turns, ``rounds`` times."""
    (images := folder / "corpus").mkdir()
    config = TrainingConfig(
        output=folder / "run",
        backend=backend,
        model=model,
        device="cpu",
        dtype="float32",
        corpus={"path": corpus(images, documents := batch_size * (count + AHEAD))},  # type: ignore[arg-type]
        episodes={"shots": (IMAGES - 1, IMAGES - 1), "text": "What is this?"},  # type: ignore[arg-type]
        evaluation={"every": 0},  # type: ignore[arg-type]
        steps=count,
        batch_size=batch_size,
        log_every=1,
    )
    loaded: Any = get_backend(backend).from_pretrained(model, device="cpu", dtype="float32")
    projector = untrained(config.projector.kind, loaded.vocabulary, layers=config.projector.layers).requires_grad_()
    encoder = Encoder(loaded, projector, loaded.default_format)
    batches = list(islice(training_batches(config.model_copy(update={"workers": 0})), count + AHEAD))
    bare: Bare = Pocket(loaded) if backend == "pocket" else LlavaFloor(loaded)
    kept = folder / "kept"
    cache = ReadingCache(kept, encoder, limit=10e9)
    steps = prepared(bare, encoder, batches, cache, config.reading_tokens)[:count]
    cache.close()
    measured = steps[WARM:]
    floor(bare, projector, measured[:1], config, read=True)  # warm
    variants: dict[str, Callable[[], float]] = {
        "floor, empty cache": lambda: seconds(lambda: floor(bare, projector, measured, config, read=True)),
        "trainer, empty cache": lambda: ours(config, steps, None),
        "floor, readings cached": lambda: seconds(lambda: floor(bare, projector, measured, config, read=False)),
        "trainer, readings cached": lambda: ours(config, steps, kept),
    }
    times: dict[str, list[float]] = {name: [] for name in variants}
    loads = []
    for number in range(rounds):
        loads.append([round(load, 2) for load in os.getloadavg()])
        for name, run in variants.items():
            times[name].append(run())
            print(f"{backend}, round {number + 1}, {name}: {times[name][-1]:.1f} s", file=sys.stderr, flush=True)
    read, answered = sum(step.read_tokens for step in measured), sum(step.answer_tokens for step in measured)
    tokens = {name: answered + ("empty" in name) * read for name in variants}
    caches = ("empty cache", "readings cached")
    return {
        "documents": documents,
        "shots": IMAGES - 1,
        "batch_size": batch_size,
        "steps_measured": len(measured),
        "steps_left_out": WARM,
        "tokens": {"read": read, "fused_and_answers": answered},
        "rounds": rounds,
        "load_average_before_each_round": loads,
        "seconds": {name: [round(value, 3) for value in found] for name, found in times.items()},
        "tokens_per_second": {name: round(tokens[name] / statistics.median(found), 1) for name, found in times.items()},
        "of_floor_by_round": {
            kind: [round(a / b, 4) for a, b in zip(times[f"floor, {kind}"], times[f"trainer, {kind}"], strict=True)]
            for kind in caches
        },
        "of_floor": {kind: ratio(times[f"floor, {kind}"], times[f"trainer, {kind}"]) for kind in caches},
        "cached_of_empty": {
            which: ratio(times[f"{which}, readings cached"], times[f"{which}, empty cache"])
            for which in ("floor", "trainer")
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8, help=f"steps of a run; the first {WARM} are left out")
    parser.add_argument("--backbones", nargs="+", choices=("pocket", "llava"), default=["pocket", "llava"])
    options = parser.parse_args()
    names = {"pocket": "pocket", "llava": "LLaVA-1.5, 336 px, 4 layers"}
    found = {}
    for backend in options.backbones:
        with tempfile.TemporaryDirectory() as name:
            folder, model = Path(name), None
            if backend == "llava":
                model = small_llava(folder)
            batch_size = 4 if backend == "pocket" else 2  # its demonstrations are long
            found[names[backend]] = measure(backend, model, folder, batch_size, options.steps, options.rounds)
        print(names[backend], found[names[backend]]["of_floor"], file=sys.stderr, flush=True)
    print(write_result("training", {"models": found}, packages=["transformers", "accelerate", "pillow"]))


if __name__ == "__main__":
    main()
