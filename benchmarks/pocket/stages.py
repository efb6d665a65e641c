"""The stages that make the backbone: the connector, then the tuned language model."""

import random
from collections.abc import Callable, Sequence
from typing import Final

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from aim_backends.pocket.connector import Connector
from aim_backends.pocket.model import PocketModel
from benchmarks.pocket import episodes
from benchmarks.pocket.alignment import Alignment, partner_loss, retrieval
from benchmarks.pocket.config import SEED, SHIPPED, THREADS, WORK
from benchmarks.pocket.corpus import NAME, PictureCorpus
from benchmarks.pocket.loop import Loop, Schedule, part
from benchmarks.pocket.prompts import Assembler, Prompt, Text, ask
from benchmarks.pocket.training_lm import RANK, TrainingLM

_PARTNER_WEIGHT: Final = 0.5
_READING_SHARPNESS: Final = 12.0


def stage0(steps: int) -> None:
    """Align the connector without the language model."""
    model, corpus, connector = _start()
    alignment = Alignment(model, corpus)

    def step(rng: random.Random) -> dict[str, float]:
        torch.manual_seed(rng.randrange(2**31))
        loss = alignment(connector, rng, 128)
        loss.backward()
        return {"align": loss.item()}

    schedule = Schedule("stage0", steps)
    Loop(schedule, {"connector": connector, "alignment": alignment}, {"connector": 2e-3, "alignment": 2e-3}).run(step)
    print(retrieval(model, connector.eval(), corpus), flush=True)


def stage1(steps: int) -> None:
    """Train the connector by the frozen language model's loss on single images; keep stage 0's loss beside it."""
    model, corpus, connector = _start("stage0")
    alignment = _alignment(model, corpus, "stage0")
    assembler = Assembler(model, connector, TrainingLM(model.lm))

    def step(rng: random.Random) -> dict[str, float]:
        loss = assembler.backward([corpus.single(rng) for _ in range(24)])
        return {"lm": loss, "align": _backward_alignment(alignment, connector, rng)}

    modules: dict[str, nn.Module] = {"connector": connector, "alignment": alignment}
    Loop(Schedule("stage1", steps), modules, {"connector": 1e-3, "alignment": 1e-3}).run(step)
    print(retrieval(model, connector.eval(), corpus), flush=True)


def stage_a(steps: int) -> None:
    """Tune the language model (LoRA) and the connector on text-only few-shot episodes and single images."""
    model, corpus, connector = _start("stage1")
    alignment = _alignment(model, corpus, "stage1")
    lm = TrainingLM(model.lm, RANK)
    assembler = Assembler(model, connector, lm)
    kinds: Sequence[tuple[str, Callable[[random.Random, PictureCorpus], Prompt], int, float]] = (
        ("text", episodes.text_only, 6, 0.4),
        ("image", episodes.one_image, 6, 0.4),
        ("single", lambda rng, corpus: corpus.single(rng), 6, 0.2),
    )

    def step(rng: random.Random) -> dict[str, float]:
        losses = {
            name: assembler.backward([make(rng, corpus) for _ in range(size)], weight)
            for name, make, size, weight in kinds
        }
        return losses | {"align": _backward_alignment(alignment, connector, rng)}

    modules: dict[str, nn.Module] = {"connector": connector, "alignment": alignment, "lora": lm.lora}
    rates = {"connector": 5e-4, "alignment": 1e-3, "lora": 1e-3}
    Loop(Schedule("stageA", steps), modules, rates).run(step)


def realign(steps: int) -> None:
    """Align stage A's connector on the wide data, without the language model."""
    model, corpus, connector = _start("stageA")
    alignment = Alignment(model, corpus)
    print(retrieval(model, connector.eval(), corpus), flush=True)
    connector.train()

    def step(rng: random.Random) -> dict[str, float]:
        return _realign(alignment, connector, rng, 1.0, 96)

    schedule = Schedule("realign", steps)
    Loop(schedule, {"connector": connector, "alignment": alignment}, {"connector": 1e-3, "alignment": 3e-3}).run(step)
    print(retrieval(model, connector.eval(), corpus), flush=True)


def retune(steps: int) -> None:
    """Go on with stage A on the wide data.

    Most prompts name drawings, in pairs of one concept: readings of its drawings are also drawn together, as the
    carrier will carry them ("soft next token").
    """
    model, corpus, connector = _start("realign")
    alignment = _alignment(model, corpus, "realign")
    lm = TrainingLM(model.lm, RANK)
    lm.lora.load_state_dict(part(load_file(WORK / "stageA.safetensors"), "lora"))
    assembler = Assembler(model, connector, lm)

    def step(rng: random.Random) -> dict[str, float]:
        text = assembler.backward([episodes.text_only(rng, corpus)], 0.1)
        image = assembler.backward([episodes.one_image(rng, corpus) for _ in range(4)], 0.35)
        single = assembler.backward([corpus.other_single(rng) for _ in range(4)], 0.15)
        name, reading = _backward_pairs(assembler, corpus, rng, 8)
        losses = {"text": text, "image": image, "single": single, "name": name, "reading": reading}
        return losses | _realign(alignment, connector, rng, 0.3, 64)

    modules: dict[str, nn.Module] = {"connector": connector, "alignment": alignment, "lora": lm.lora}
    Loop(Schedule("retune", steps), modules, {"connector": 4e-4, "alignment": 1e-3, "lora": 6e-4}).run(step)
    print(retrieval(model, connector.eval(), corpus), flush=True)


def _realign(
    alignment: Alignment, connector: Connector, rng: random.Random, weight: float, size: int
) -> dict[str, float]:
    """Leave the gradient of the alignment to names, and between drawings."""
    torch.manual_seed(rng.randrange(2**31))
    named, paired = alignment(connector, rng, size), alignment.contrast(connector, rng, size // 2)
    (weight * (named + _PARTNER_WEIGHT * paired)).backward()
    return {"align": float(named.detach()), "pair": float(paired.detach())}


def _backward_pairs(assembler: Assembler, corpus: PictureCorpus, rng: random.Random, pairs: int) -> tuple[float, float]:
    """Leave the gradient of naming pairs of drawings, and of telling by their readings which belong together."""
    drawn = [corpus.draw_pair(rng) for _ in range(pairs)]
    views = [first for _, first, _ in drawn] + [second for _, _, second in drawn]
    concepts = [concept for concept, _, _ in drawn] * 2
    prompts = [[*ask(NAME, v), Text(f" {corpus.name(c)}\n", True)] for c, v in zip(concepts, views, strict=True)]
    batch = assembler.pack(prompts)
    hidden = assembler.forward(batch.embeddings)
    named = assembler.losses(batch, hidden).mean()
    sizes = torch.tensor([len(assembler.ids(f" {corpus.name(c)}\n")) for c in concepts])
    readings = hidden[torch.arange(len(prompts)), batch.lengths - sizes - 1]
    table = assembler.model.lm.embed_tokens.weight
    carried = F.normalize(assembler.model.lm.head(readings).softmax(-1) @ table - table.mean(0), dim=-1)
    paired = partner_loss(carried, torch.tensor(concepts), _READING_SHARPNESS)
    (0.35 * named + 0.15 * paired).backward()
    return float(named.detach()), float(paired.detach())


def ship() -> None:
    """Put the last stage's connector and LoRA among the files that the backend ships, in bf16."""
    state = load_file(WORK / "retune.safetensors")
    lm = TrainingLM(PocketModel.load_base().lm, RANK)
    lm.lora.load_state_dict(part(state, "lora"))
    for name, tensors in (("connector", part(state, "connector")), ("lora", lm.lora_state())):
        packed = {key: value.to(torch.bfloat16).contiguous().clone() for key, value in tensors.items()}
        save_file(packed, SHIPPED / f"{name}.safetensors")


def _start(previous: str | None = None) -> tuple[PocketModel, PictureCorpus, Connector]:
    torch.set_num_threads(THREADS)
    torch.manual_seed(SEED)
    model = PocketModel.load_base()
    connector = Connector()
    if previous:
        connector.load_state_dict(part(load_file(WORK / f"{previous}.safetensors"), "connector"))
    return model, PictureCorpus(model), connector


def _alignment(model: PocketModel, corpus: PictureCorpus, previous: str) -> Alignment:
    alignment = Alignment(model, corpus)
    alignment.load_state_dict(part(load_file(WORK / f"{previous}.safetensors"), "alignment"))
    return alignment


def _backward_alignment(alignment: Alignment, connector: Connector, rng: random.Random, weight: float = 0.3) -> float:
    torch.manual_seed(rng.randrange(2**31))
    loss = alignment(connector, rng, 64)
    (weight * loss).backward()
    return float(loss.detach())
