"""Stage ``evaluate``: the frozen backbone and the carrier on held-out concepts, style, words and images."""

import json
import os
import platform
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Final

import torch

from benchmarks.pocket import carrier
from benchmarks.pocket.aim_episodes import Cell, Episode
from benchmarks.pocket.catalog import CATEGORIES
from benchmarks.pocket.config import RESULTS, SEED, THREADS
from benchmarks.pocket.corpus import KIND, NAME
from benchmarks.pocket.features import Question, load_easy_vqa
from benchmarks.pocket.prompts import Prompt, Text, Visual, ask, show
from benchmarks.pocket.readings import carried, carriers, keys_of, newline_embedding, prompt_of
from benchmarks.pocket.words import COLOURS, SHAPES

BINDING: Final = (Cell("A", 2, 2), Cell("A", 4, 2), Cell("A", 8, 2), Cell("A", 4, 4))
OTHERS: Final = (Cell("B", 4, 2), Cell("B", 8, 2), Cell("C", 2, 0))
LOOK_UP: Final = ((2, 2), (4, 4), (2, 8), (8, 8))  # classes, shots
_EVALUATION_SEED: Final = 4242
_PACKAGES: Final = ("torch", "tokenizers", "safetensors", "pillow", "numpy")

Score = dict[str, float]
Scores = dict[str, Score]


def run(episodes: int, others: int) -> None:
    """Measure everything, print it and write ``benchmarks/results/pocket-<date>.json``."""
    pocket = carrier.FrozenPocket()
    parts: dict[str, Scores] = {}
    for name, measure in (
        ("easy-VQA test split", easy_vqa),
        ("single images", single_images),
        ("text look-up", look_up),
    ):
        parts[name] = measure(pocket)
        _print(name, parts[name])
    parts |= few_shot(pocket, episodes, others)
    result = {
        "what": "pocket: frozen backbone and carrier, held-out concepts, style and labels",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seeds": {"training": SEED, "evaluation": _EVALUATION_SEED},
        "machine": _machine(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
        "scores": parts,
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"pocket-{datetime.now(UTC):%Y-%m-%d}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {path.name}")


def easy_vqa(pocket: carrier.FrozenPocket, number: int = 900) -> Scores:
    """Answer a sample of the official test questions, choosing among the answers of the question's kind."""
    data = load_easy_vqa("test")
    questions = random.Random(_EVALUATION_SEED).sample(data.questions, number)
    prompts = [ask(question.text, Visual(data.matrix[question.image])) for question in questions]
    options = [_options(question) for question in questions]
    picked = pocket.assembler.choose(prompts, options)
    hits: dict[str, list[bool]] = {"colour": [], "shape": [], "yes/no": []}
    for question, words, index in zip(questions, options, picked, strict=True):
        kind = "colour" if words is COLOURS else "shape" if words is SHAPES else "yes/no"
        hits[kind].append(words[index] == question.answer)
    return {kind: _score(values) for kind, values in hits.items()}


def single_images(pocket: carrier.FrozenPocket, number: int = 80) -> Scores:
    """Name drawings (exact match) and choose their category among seven."""
    corpus, rng, out = pocket.corpus, random.Random(_EVALUATION_SEED), dict[str, Score]()
    kinds = tuple(CATEGORIES.values())
    for label, concepts in (("training concepts", corpus.training), ("held-out concepts", corpus.held_out)):
        chosen = rng.sample([c for c in concepts if corpus.has_held_out_style(c)], number)
        for style in ("training style", "held-out style"):
            views = [
                Visual(corpus.view(c, corpus.styles(c)[0])) if style == "training style" else corpus.held_out_view(c)
                for c in chosen
            ]
            named = pocket.assembler.generate([ask(NAME, view) for view in views], tokens=6)
            picked = pocket.assembler.choose([ask(KIND, view) for view in views], [kinds] * number)
            where = f"{label}, {style}"
            out[f"name, {where}"] = _score([n == corpus.name(c) for n, c in zip(named, chosen, strict=True)])
            right = [kinds[i] == corpus.concepts[c].category for i, c in zip(picked, chosen, strict=True)]
            out[f"category, {where}"] = _score(right)
    return out


def look_up(pocket: carrier.FrozenPocket, number: int = 100) -> Scores:
    """Text-only few-shot: held-out words as contents, held-out words as labels."""
    rng, words, out = random.Random(_EVALUATION_SEED), pocket.corpus.words, dict[str, Score]()
    for classes, shots in LOOK_UP:
        prompts, candidates, right = list[Prompt](), list[list[str]](), list[int]()
        for _ in range(number):
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
        out[f"{classes}-way, k={shots}"] = _score([a == b for a, b in zip(picked, right, strict=True)])
    return out


def few_shot(pocket: carrier.FrozenPocket, number: int, others: int) -> dict[str, Scores]:
    """Compare AIM with its baselines and controls on fresh episodes, half of them with held-out concepts and style."""
    rng = random.Random(_EVALUATION_SEED)
    binding = [_episode(pocket, rng, cell, index) for cell in BINDING for index in range(number)]
    rest = [_episode(pocket, rng, cell, index) for cell in OTHERS for index in range(others)]
    out: dict[str, Scores] = {}
    for mode in ("zero-shot", "text-only", "interleaved", "names as text"):
        episodes = [*binding, *rest]
        prompts = [prompt_of(episode, mode, pocket.maker) for episode in episodes]
        out[mode] = _tabulate(episodes, _right(pocket, episodes, prompts))
        _print(mode, out[mode])
    for name, file in (("AIM, trained carrier", "carrier_shipped"), ("AIM, training-free carrier", carrier.START)):
        for images in (True, False):
            label = name if images else f"{name}, demonstrations read without their images"
            episodes = [*binding, *rest] if images else binding
            prompts = _carried(pocket, file, episodes, images)
            out[label] = _tabulate(episodes, _right(pocket, episodes, prompts))
            _print(label, out[label])
    return out


def _episode(pocket: carrier.FrozenPocket, rng: random.Random, cell: Cell, index: int) -> Episode:
    return pocket.maker.make(rng, cell, held_out=index % 2 == 1, new_labels=True)


def _carried(pocket: carrier.FrozenPocket, file: str, episodes: Sequence[Episode], images: bool) -> list[Prompt]:
    projector, newline = carrier.load(file, pocket), newline_embedding(pocket.assembler)
    prompts = []
    for episode in episodes:
        hidden = torch.stack(pocket.reader.read(keys_of(episode, images)))
        prompts.append(carried(episode, carriers(projector, hidden, newline), pocket.maker.visual(episode.query)))
    return prompts


def _right(pocket: carrier.FrozenPocket, episodes: Sequence[Episode], prompts: Sequence[Prompt]) -> list[bool]:
    """Labels differ in their first token and are chosen by it; styled answers by their whole log-probability."""
    right = [False] * len(episodes)
    for styled, pick in ((False, pocket.assembler.choose), (True, pocket.assembler.rank)):
        chosen = [index for index, episode in enumerate(episodes) if (episode.cell.task == "C") == styled]
        picked = pick([prompts[i] for i in chosen], [episodes[i].candidates for i in chosen]) if chosen else []
        for index, answer in zip(chosen, picked, strict=True):
            right[index] = answer == episodes[index].right
    return right


def _tabulate(episodes: Sequence[Episode], right: Sequence[bool]) -> Scores:
    groups: dict[str, list[bool]] = {}
    for episode, hit in zip(episodes, right, strict=True):
        split = "held-out concepts and style" if episode.held_out else "training concepts"
        for group in (str(episode.cell), f"{episode.cell.task} pooled", f"{episode.cell.task} pooled, {split}"):
            groups.setdefault(group, []).append(hit)
    return {group: _score(hits) for group, hits in groups.items()}


def _options(question: Question) -> Sequence[str]:
    if question.answer in ("yes", "no"):
        return "yes", "no"
    return COLOURS if question.answer in COLOURS else SHAPES


def _score(hits: Sequence[bool]) -> Score:
    mean = sum(hits) / len(hits)
    return {"mean": round(mean, 4), "se": round((mean * (1 - mean) / len(hits)) ** 0.5, 4), "n": len(hits)}


def _print(title: str, scores: Scores) -> None:
    print(f"\n{title}")
    for name, score in scores.items():
        print(f"  {name:48} {score['mean']:.3f} +- {score['se']:.3f}  n={score['n']:.0f}", flush=True)


def _machine() -> dict[str, Any]:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            lines = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        lines = []
    return {"cpu": lines[0] if lines else platform.processor(), "cores": os.cpu_count(), "threads": THREADS}
