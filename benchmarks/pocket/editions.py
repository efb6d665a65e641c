"""Stage ``editions``: two editions of the backbone on the same items, from cached features; the carrier untrained.

Quick, to decide between backbones. What users see is measured by ``few_shot.py``, through the public backend.
"""

import json
import os
import platform
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch

from aim_backends.pocket.connector import Connector
from benchmarks.pocket import carrier
from benchmarks.pocket.aim_episodes import Cell, Episode
from benchmarks.pocket.alignment import retrieval
from benchmarks.pocket.catalog import CATEGORIES
from benchmarks.pocket.config import CHECKPOINTS, RESULTS, SEED, SHIPPED, THREADS
from benchmarks.pocket.corpus import KIND, NAME
from benchmarks.pocket.features import Question, load_easy_vqa
from benchmarks.pocket.prompts import Prompt, Text, Visual, ask, show
from benchmarks.pocket.readings import carried, carriers, keys_of, newline_embedding, prompt_of
from benchmarks.pocket.words import COLOURS, SHAPES

EDITIONS: Final = {"first edition": SHIPPED, "second edition": CHECKPOINTS}
BINDING: Final = (Cell("A", 2, 2), Cell("A", 4, 2), Cell("A", 8, 2), Cell("A", 4, 4))
OTHERS: Final = (Cell("B", 4, 2),)
LOOK_UP: Final = ((2, 2), (4, 4), (8, 8))  # classes, shots
_EVALUATION_SEED: Final = 4242
_PACKAGES: Final = ("torch", "tokenizers", "safetensors", "pillow", "numpy")

Hits = dict[str, list[bool]]  # table row -> item by item
Score = dict[str, float]


@dataclass(frozen=True)
class Sizes:
    """Numbers of items: episodes a cell, look-ups a cell, questions of easy-VQA a kind, drawings a split."""

    binding: int
    others: int
    look_up: int
    questions: int
    images: int


def run(sizes: Sizes, editions: dict[str, Path] = EDITIONS) -> None:
    """Measure every edition, print it and write ``benchmarks/results/pocket-editions-<date>.json`` after each part."""
    hits: dict[str, Hits] = {}
    similarity: dict[str, dict[str, float]] = {}
    for name, folder in editions.items():
        if not folder.exists():
            continue
        pocket = carrier.FrozenPocket(folder)
        assert isinstance(pocket.model.connector, Connector)
        similarity[name] = retrieval(pocket.model, pocket.model.connector, pocket.corpus)
        hits[name] = {}
        for part in (few_shot, easy_vqa, single_images, look_up):
            hits[name] |= part(pocket, sizes)
            _report(hits, similarity)


def _report(hits: dict[str, Hits], similarity: dict[str, dict[str, float]]) -> None:
    scores = {edition: {row: _score(values) for row, values in rows.items()} for edition, rows in hits.items()}
    first, *later = hits
    gains = {name: {row: _gain(hits[first][row], hits[name][row]) for row in hits[name]} for name in later}
    result = {
        "what": "editions of pocket's backbone on the same items; AIM with the training-free carrier",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seeds": {"training": SEED, "evaluation": _EVALUATION_SEED},
        "machine": machine(),
        "versions": versions(),
        "retrieval": similarity,
        "scores": scores,
        "gain over the first, paired": gains,
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"pocket-editions-{datetime.now(UTC):%Y-%m-%d}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for row, score in scores[list(hits)[-1]].items():
        print(f"  {list(hits)[-1]}: {row:60} {score['mean']:.3f} +- {score['se']:.3f}  n={score['n']:.0f}", flush=True)


def few_shot(pocket: carrier.FrozenPocket, sizes: Sizes) -> Hits:
    """AIM, interleaved and text-only on episodes of which every second has held-out concepts and style."""
    rng = random.Random(_EVALUATION_SEED)
    plan = [(cell, sizes.binding) for cell in BINDING] + [(cell, sizes.others) for cell in OTHERS]
    episodes = [
        pocket.maker.make(rng, cell, held_out=index % 2 == 1, new_labels=True)
        for cell, size in plan
        for index in range(size)
    ]
    prompts = {
        "AIM": _carried(pocket, episodes),
        "interleaved": [prompt_of(episode, "interleaved", pocket.maker) for episode in episodes],
        "text-only": [prompt_of(episode, "text-only", pocket.maker) for episode in episodes],
    }
    hits: Hits = {}
    for mode, asked in prompts.items():
        picked = pocket.assembler.choose(asked, [episode.candidates for episode in episodes])
        for episode, index in zip(episodes, picked, strict=True):
            split = "held-out concepts and style" if episode.held_out else "training concepts"
            task = episode.cell.task
            for row in (str(episode.cell), f"{task} pooled", f"{task} pooled, {split}"):
                hits.setdefault(f"{mode}, {row}", []).append(index == episode.right)
    return hits


def _carried(pocket: carrier.FrozenPocket, episodes: Sequence[Episode]) -> list[Prompt]:
    projector, newline = carrier.start(pocket), newline_embedding(pocket.assembler)
    pocket.reader.read([key for episode in episodes for key in keys_of(episode)])  # in large batches
    prompts = []
    with torch.no_grad():
        for episode in episodes:
            hidden = torch.stack(pocket.reader.read(keys_of(episode)))
            vectors = carriers(projector, hidden, newline)
            prompts.append(carried(episode, vectors, pocket.maker.visual(episode.query)))
    return prompts


def easy_vqa(pocket: carrier.FrozenPocket, sizes: Sizes) -> Hits:
    """Answer official test questions of each kind, choosing among the answers of the kind."""
    data = load_easy_vqa("test")
    kinds: dict[str, list[Question]] = {}
    for question in random.Random(_EVALUATION_SEED).sample(data.questions, len(data.questions)):
        kinds.setdefault(_kind(question), []).append(question)
    hits: Hits = {}
    for kind, questions in kinds.items():
        chosen = questions[: sizes.questions]
        options: Sequence[str] = {"yes/no": ("yes", "no"), "colour": COLOURS, "shape": SHAPES}[kind]
        prompts = [ask(question.text, Visual(data.matrix[question.image])) for question in chosen]
        picked = pocket.assembler.choose(prompts, [options] * len(chosen))
        right = [options[index] == question.answer for question, index in zip(chosen, picked, strict=True)]
        hits[f"easy-VQA, {kind}"] = right
    return hits


def single_images(pocket: carrier.FrozenPocket, sizes: Sizes) -> Hits:
    """Name drawings (exact match) and choose their category among seven."""
    corpus, rng, hits = pocket.corpus, random.Random(_EVALUATION_SEED), Hits()
    kinds = tuple(CATEGORIES.values())
    for label, concepts in (("training concepts", corpus.training), ("held-out concepts", corpus.held_out)):
        chosen = rng.sample([c for c in concepts if corpus.has_held_out_style(c)], sizes.images)
        for style in ("training style", "held-out style"):
            views = [
                Visual(corpus.view(c, corpus.styles(c)[0])) if style == "training style" else corpus.held_out_view(c)
                for c in chosen
            ]
            named = pocket.assembler.generate([ask(NAME, view) for view in views], tokens=6)
            picked = pocket.assembler.choose([ask(KIND, view) for view in views], [kinds] * sizes.images)
            where = f"{label}, {style}"
            hits[f"name, {where}"] = [n == corpus.name(c) for n, c in zip(named, chosen, strict=True)]
            hits[f"category, {where}"] = [
                kinds[i] == corpus.concepts[c].category for i, c in zip(picked, chosen, strict=True)
            ]
    return hits


def look_up(pocket: carrier.FrozenPocket, sizes: Sizes) -> Hits:
    """Text-only few-shot: held-out words as contents, held-out words as labels."""
    rng, words, hits = random.Random(_EVALUATION_SEED), pocket.corpus.words, Hits()
    for classes, shots in LOOK_UP:
        prompts, candidates, right = list[Prompt](), list[list[str]](), list[int]()
        for _ in range(sizes.look_up):
            labels = words.labels(rng, classes, held_out=True, made_up=0.0)
            contents = [words.phrase(rng, (1, 2), held_out=True) for _ in range(classes)]
            order = [index % classes for index in range(shots)]
            rng.shuffle(order)
            asked = rng.randrange(classes)
            prompt = [part for index in order for part in show(NAME, Text(contents[index]), labels[index])]
            prompts.append([*prompt, *ask(NAME, Text(contents[asked]))])
            candidates.append(labels)
            right.append(asked)
        picked = pocket.assembler.choose(prompts, candidates)
        hits[f"look-up in text, {classes}-way, k={shots}"] = [a == b for a, b in zip(picked, right, strict=True)]
    return hits


def machine() -> dict[str, Any]:
    """Describe the machine."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            lines = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        lines = []
    return {"cpu": lines[0] if lines else platform.processor(), "cores": os.cpu_count(), "threads": THREADS}


def versions() -> dict[str, str]:
    """List what numbers may depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}


def _kind(question: Question) -> str:
    if question.answer in ("yes", "no"):
        return "yes/no"
    return "colour" if question.answer in COLOURS else "shape"


def _score(hits: Sequence[bool]) -> Score:
    mean = sum(hits) / len(hits)
    return {"mean": round(mean, 4), "se": round((mean * (1 - mean) / len(hits)) ** 0.5, 4), "n": len(hits)}


def _gain(before: Sequence[bool], after: Sequence[bool]) -> Score:
    """Return the mean of the differences, item by item, and its standard error."""
    changes = [int(b) - int(a) for a, b in zip(before, after, strict=True)]
    mean = sum(changes) / len(changes)
    variance = sum((change - mean) ** 2 for change in changes) / max(1, len(changes) - 1)
    return {"mean": round(mean, 4), "se": round((variance / len(changes)) ** 0.5, 4), "n": len(changes)}
