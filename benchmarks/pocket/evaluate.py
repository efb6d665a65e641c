"""Stage ``evaluate``: the frozen backbone and the carrier on held-out concepts, style, words and images."""

import json
import os
import platform
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Final

import torch

from benchmarks.pocket import carrier
from benchmarks.pocket.aim_episodes import AimEpisode, TableRow
from benchmarks.pocket.catalog import CATEGORIES
from benchmarks.pocket.config import RESULTS, SEED, THREADS
from benchmarks.pocket.corpus import KIND, NAME
from benchmarks.pocket.features import QuestionFeatures, load_easy_vqa
from benchmarks.pocket.prompts import Prompt, Text, Visual, ask, show
from benchmarks.pocket.readings import carried, carriers, keys_of, newline_embedding, prompt_of
from benchmarks.pocket.words import COLOURS, SHAPES

BINDING: Final = (TableRow("A", 2, 2), TableRow("A", 4, 2), TableRow("A", 8, 2), TableRow("A", 4, 4))
OTHERS: Final = (TableRow("B", 4, 2), TableRow("B", 8, 2), TableRow("C", 2, 0))
LOOK_UP: Final = ((2, 2), (4, 4), (2, 8), (8, 8))  # classes, shots
_EVALUATION_SEED: Final = 4242
_PACKAGES: Final = ("torch", "tokenizers", "safetensors", "pillow", "numpy")

Score = dict[str, float]
Scores = dict[str, Score]
Carry = Callable[[torch.Tensor], torch.Tensor]  # readings (k, 576) to carriers (k, 576)


@dataclass(frozen=True)
class Sizes:
    """Numbers of items; ``controls``: how many of a cell's episodes the baselines beyond text-only see."""

    binding: int
    others: int
    controls: int
    look_up: int
    questions: int
    images: int


class Report:
    """Collects scores, prints them and keeps the result file up to date."""

    def __init__(self) -> None:
        self._path = RESULTS / f"pocket-{datetime.now(UTC):%Y-%m-%d}.json"
        self._scores: dict[str, Scores] = {}

    def add(self, title: str, scores: Scores) -> None:
        """Add one table."""
        self._scores[title] = scores
        print(f"\n{title}")
        for name, score in scores.items():
            print(f"  {name:48} {score['mean']:.3f} +- {score['se']:.3f}  n={score['n']:.0f}", flush=True)
        result = {
            "what": "pocket: the frozen backbone and its carrier on held-out concepts, style, labels and images",
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "seeds": {"training": SEED, "evaluation": _EVALUATION_SEED},
            "machine": _machine(),
            "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
            "scores": self._scores,
        }
        RESULTS.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def run(sizes: Sizes) -> None:
    """Measure everything, print it and write ``benchmarks/results/pocket-<date>.json`` after every part."""
    pocket = carrier.FrozenPocket()
    report = Report()
    few_shot(pocket, sizes, report)
    report.add("text look-up", look_up(pocket, sizes.look_up))
    report.add("easy-VQA test split", easy_vqa(pocket, sizes.questions))
    report.add("single images", single_images(pocket, sizes.images))


def easy_vqa(pocket: carrier.FrozenPocket, number: int) -> Scores:
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


def single_images(pocket: carrier.FrozenPocket, number: int) -> Scores:
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


def look_up(pocket: carrier.FrozenPocket, number: int) -> Scores:
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


def few_shot(pocket: carrier.FrozenPocket, sizes: Sizes, report: Report) -> None:
    """Compare AIM with its baselines and controls on fresh episodes, half of them with held-out concepts and style."""
    rng = random.Random(_EVALUATION_SEED)
    plan = [(cell, sizes.binding) for cell in BINDING] + [(cell, sizes.others) for cell in OTHERS]
    numbered = [(index, _episode(pocket, rng, cell, index)) for cell, size in plan for index in range(size)]
    episodes = [episode for _, episode in numbered]
    binding = [episode for episode in episodes if episode.cell in BINDING]
    fewer = [episode for index, episode in numbered if index < sizes.controls]
    without = "demonstrations read without their images"

    def aim(title: str, carry: Carry, chosen: Sequence[AimEpisode], images: bool = True) -> None:
        prompts = _carried(pocket, carry, chosen, images)
        report.add(title, _tabulate(chosen, _right(pocket, chosen, prompts)))

    def baseline(mode: str, chosen: Sequence[AimEpisode]) -> None:
        prompts = [prompt_of(episode, mode, pocket.maker) for episode in chosen]
        report.add(mode, _tabulate(chosen, _right(pocket, chosen, prompts)))

    trained, start = _carry(pocket, "carrier_shipped"), _carry(pocket, carrier.START)
    aim("AIM, trained carrier", trained, episodes)
    aim(f"AIM, trained carrier, {without}", trained, binding, images=False)
    baseline("text-only", episodes)
    baseline("interleaved", fewer)
    baseline("names as text", fewer)
    baseline("zero-shot", fewer)
    fewer_binding = [episode for episode in fewer if episode.cell in BINDING]
    aim("AIM, training-free carrier", start, fewer)
    aim(f"AIM, training-free carrier, {without}", start, fewer_binding, images=False)


def _carry(pocket: carrier.FrozenPocket, file: str) -> Carry:
    projector, newline = carrier.load(file, pocket), newline_embedding(pocket.assembler)
    return lambda hidden: carriers(projector, hidden, newline)


def _episode(pocket: carrier.FrozenPocket, rng: random.Random, cell: TableRow, index: int) -> AimEpisode:
    return pocket.maker.make(rng, cell, held_out=index % 2 == 1, new_labels=True)


def _carried(pocket: carrier.FrozenPocket, carry: Carry, episodes: Sequence[AimEpisode], images: bool) -> list[Prompt]:
    pocket.reader.read([key for episode in episodes for key in keys_of(episode, images)])  # in large batches
    prompts = []
    for episode in episodes:
        hidden = torch.stack(pocket.reader.read(keys_of(episode, images)))
        prompts.append(carried(episode, carry(hidden), pocket.maker.visual(episode.query)))
    return prompts


def _right(pocket: carrier.FrozenPocket, episodes: Sequence[AimEpisode], prompts: Sequence[Prompt]) -> list[bool]:
    """Labels differ in their first token and are chosen by it; styled answers by their whole log-probability."""
    right = [False] * len(episodes)
    for styled, pick in ((False, pocket.assembler.choose), (True, pocket.assembler.rank)):
        chosen = [index for index, episode in enumerate(episodes) if (episode.cell.task == "C") == styled]
        picked = pick([prompts[i] for i in chosen], [episodes[i].candidates for i in chosen]) if chosen else []
        for index, answer in zip(chosen, picked, strict=True):
            right[index] = answer == episodes[index].right
    return right


def _tabulate(episodes: Sequence[AimEpisode], right: Sequence[bool]) -> Scores:
    groups: dict[str, list[bool]] = {}
    for episode, hit in zip(episodes, right, strict=True):
        split = "held-out concepts and style" if episode.held_out else "training concepts"
        for group in (str(episode.cell), f"{episode.cell.task} pooled", f"{episode.cell.task} pooled, {split}"):
            groups.setdefault(group, []).append(hit)
    return {group: _score(hits) for group, hits in groups.items()}


def _options(question: QuestionFeatures) -> Sequence[str]:
    if question.answer in ("yes", "no"):
        return "yes", "no"
    return COLOURS if question.answer in COLOURS else SHAPES


def _score(hits: Sequence[bool]) -> Score:
    mean = sum(hits) / len(hits)
    return {"mean": round(mean, 4), "se": round((mean * (1 - mean) / len(hits)) ** 0.5, 4), "n": len(hits)}


def _machine() -> dict[str, Any]:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            lines = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        lines = []
    return {"cpu": lines[0] if lines else platform.processor(), "cores": os.cpu_count(), "threads": THREADS}
