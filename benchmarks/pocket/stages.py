"""The stages that make the backbone: the connector, then the tuned language model."""

import random
from collections.abc import Callable, Sequence

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from aim_backends.pocket.connector import Connector
from aim_backends.pocket.model import PocketModel
from benchmarks.pocket import episodes
from benchmarks.pocket.alignment import Alignment, retrieval
from benchmarks.pocket.config import SEED, SHIPPED, THREADS, WORK
from benchmarks.pocket.corpus import Corpus
from benchmarks.pocket.loop import Loop, Schedule, part
from benchmarks.pocket.prompts import Assembler, Prompt
from benchmarks.pocket.training_lm import RANK, TrainingLM


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


def stage_a(steps: int, rate: float = 1.0) -> None:
    """Tune the language model (LoRA) and the connector on text-only few-shot episodes and single images.

    ``rate`` scales the learning rates.
    """
    model, corpus, connector = _start("stage1")
    alignment = _alignment(model, corpus, "stage1")
    lm = TrainingLM(model.lm, RANK)
    assembler = Assembler(model, connector, lm)
    kinds: Sequence[tuple[str, Callable[[random.Random, Corpus], Prompt], int, float]] = (
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
    rates = {"connector": 5e-4 * rate, "alignment": 1e-3 * rate, "lora": 1e-3 * rate}
    Loop(Schedule("stageA", steps), modules, rates).run(step)


def adopt_shipped() -> None:
    """Make the shipped weights the start of stage A, instead of stage 1's."""
    if (WORK / "stageA.safetensors").exists():
        return
    model = PocketModel.load_base()
    lm = TrainingLM(model.lm, RANK)
    lm.load_lora_state(load_file(SHIPPED / "lora.safetensors"))
    modules = {"connector": Connector(), "alignment": Alignment(model, Corpus(model)), "lora": lm.lora}
    modules["connector"].load_state_dict(load_file(SHIPPED / "connector.safetensors"))
    tensors = {
        f"{name}.{key}": value.detach().clone()
        for name, module in modules.items()
        for key, value in module.state_dict().items()
    }
    for stage in ("stage1", "stageA"):
        save_file(tensors, WORK / f"{stage}.safetensors", {"step": "0"})


def ship() -> None:
    """Put stage A's connector and LoRA among the files that the backend ships, in bf16."""
    checkpoint = load_file(WORK / "stageA.safetensors")
    lm = TrainingLM(PocketModel.load_base().lm, RANK)
    lm.lora.load_state_dict(part(checkpoint, "lora"))
    for name, state in (("connector", part(checkpoint, "connector")), ("lora", lm.lora_state())):
        SHIPPED.mkdir(exist_ok=True)
        tensors = {key: value.to(torch.bfloat16).contiguous().clone() for key, value in state.items()}
        save_file(tensors, SHIPPED / f"{name}.safetensors")


def _start(previous: str | None = None) -> tuple[PocketModel, Corpus, Connector]:
    torch.set_num_threads(THREADS)
    torch.manual_seed(SEED)
    model = PocketModel.load_base()
    connector = Connector()
    if previous:
        connector.load_state_dict(part(load_file(WORK / f"{previous}.safetensors"), "connector"))
    return model, Corpus(model), connector


def _alignment(model: PocketModel, corpus: Corpus, previous: str) -> Alignment:
    alignment = Alignment(model, corpus)
    alignment.load_state_dict(part(load_file(WORK / f"{previous}.safetensors"), "alignment"))
    return alignment


def _backward_alignment(alignment: Alignment, connector: Connector, rng: random.Random, weight: float = 0.3) -> float:
    torch.manual_seed(rng.randrange(2**31))
    loss = alignment(connector, rng, 64)
    (weight * loss).backward()
    return float(loss.detach())
