"""Stage ``carrier``: the projector, from its training-free start; the backbone stays frozen."""

import random
from pathlib import Path
from typing import Final

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from aim_backends.pocket.backend import PocketBackend
from aim_backends.pocket.model import PocketModel
from aim_sdk.projectors import CarrierProjector
from benchmarks.pocket.aim_episodes import AimEpisode, AimEpisodeMaker, TableRow
from benchmarks.pocket.config import SEED, SHIPPED, THREADS, WORK
from benchmarks.pocket.corpus import PictureCorpus
from benchmarks.pocket.episodes import question
from benchmarks.pocket.loop import Loop, Schedule
from benchmarks.pocket.prompts import Assembler, Prompt, Text, answer_segment
from benchmarks.pocket.readings import Reader, ReadingKey, carried, carriers, keys_of, newline_embedding
from benchmarks.pocket.training_lm import TrainingLM

START: Final = "carrier_start"
EPISODES: Final = 10
LAYERS: Final = (24, -1)
_CONTRAST: Final = 0.5
_CENTRED: Final = 400  # drawings
_WIDE: Final = 0.5


class FrozenPocket:
    """A backbone (the shipped one) with what episodes need: an assembler, a maker, a reader."""

    def __init__(self, folder: Path = SHIPPED) -> None:
        torch.set_num_threads(THREADS)
        self.model = load_model(folder)
        self.corpus = PictureCorpus(self.model)
        self.maker = AimEpisodeMaker(self.corpus)
        lm = TrainingLM(self.model.lm)
        self.assembler = Assembler(self.model, self.model.vision.connector, lm)
        self.reader = Reader(self.assembler, lm, self.maker, LAYERS)


def load_model(folder: Path) -> PocketModel:
    """Load pocket with the connector and the LoRA of a folder."""
    model = PocketModel.load_base()
    model.vision.connector.load_state_dict(load_file(folder / "connector.safetensors"))
    model.lm.merge_lora(load_file(folder / "lora.safetensors"))
    return model


def train(steps: int) -> None:
    """Train the carrier and save it here and among the shipped files."""
    pocket = FrozenPocket()
    projector = start(pocket)
    save_file(projector.state_dict(), WORK / f"{START}.safetensors")
    _centre(projector, pocket)
    newline = newline_embedding(pocket.assembler)

    def step(rng: random.Random) -> dict[str, float]:
        episodes = [_draw(rng, pocket.maker) for _ in range(EPISODES)]
        return _backward(pocket, projector, episodes, newline)

    modules: dict[str, nn.Module] = {"matrix": _SlowPart(projector), "rest": _FastPart(projector)}
    Loop(Schedule("carrier", steps), modules, {"matrix": 1.5e-4, "rest": 3e-3}).run(step)
    state = {name: tensor.to(torch.bfloat16) for name, tensor in projector.state_dict().items()}
    save_file(state, WORK / "carrier_shipped.safetensors")


def start(pocket: FrozenPocket) -> CarrierProjector:
    """Return the training-free carrier."""
    # "after": the newline that `carried` replaces
    return CarrierProjector.untrained(PocketBackend(pocket.model).vocabulary, layers=LAYERS, place="after")


@torch.no_grad()
def _centre(projector: CarrierProjector, pocket: FrozenPocket) -> None:
    """Let the earlier layer's norm take away what it says of any drawing: its matrix learns what tells them apart."""
    corpus, rng = pocket.corpus, random.Random(SEED)
    concepts = rng.sample(corpus.training, _CENTRED)
    keys: list[ReadingKey] = [(("drawing", c, rng.choice(corpus.styles(c))), question(rng)) for c in concepts]
    earlier = torch.stack(pocket.reader.read(keys))[:, : -projector.hidden_size]
    projector.others_norm.bias.copy_(-projector.others_norm(earlier).mean(0))


def load(name: str, pocket: FrozenPocket) -> CarrierProjector:
    """Read a carrier from the work folder."""
    projector = start(pocket)
    state = load_file(WORK / f"{name}.safetensors")
    projector.load_state_dict({key: value.float() for key, value in state.items()})
    return projector.requires_grad_(False).eval()


class _SlowPart(nn.Module):
    """The part of a carrier that learns slowly."""

    def __init__(self, projector: CarrierProjector) -> None:
        super().__init__()
        self.weight, self.others = projector.weight, projector.others


class _FastPart(nn.Module):
    """The part that learns fast."""

    def __init__(self, projector: CarrierProjector) -> None:
        super().__init__()
        self.norm, self.others_norm, self.gate = projector.norm, projector.others_norm, projector.gate


def _draw(rng: random.Random, maker: AimEpisodeMaker) -> AimEpisode:
    """Draw a training episode: training concepts, styles and labels only."""
    kind, shots = rng.random(), rng.choice((2, 2, 3, 4, 4, 5, 6, 8))
    asked = question(rng)
    if kind < 0.55:
        classes = 2 if shots < 3 or rng.random() < 0.5 else rng.choice((3, 4) if shots > 3 else (3,))
        return maker.make(rng, TableRow("A", shots, classes), False, False, asked, wide=rng.random() < _WIDE)
    if kind < 0.75:
        return maker.make(rng, TableRow("B", max(4, shots), 2), False, False, asked)
    if kind < 0.9:
        return maker.make(rng, TableRow("V", shots, 2) if kind < 0.85 else TableRow("T", shots, 0), False, False)
    return maker.make(rng, TableRow("C", min(3, shots), 0), False, False, asked)


def _backward(
    pocket: FrozenPocket, projector: CarrierProjector, episodes: list[AimEpisode], newline: Tensor
) -> dict[str, float]:
    """Leave the gradient of LM loss + contrast between candidates."""
    keys = [keys_of(episode) for episode in episodes]
    hidden = torch.stack(pocket.reader.read([key for part in keys for key in part]))
    vectors = carriers(projector, hidden, newline)
    leaf = vectors.detach().requires_grad_()
    parts = torch.split(leaf, [len(part) for part in keys])
    prompts = [
        [*carried(episode, part, pocket.maker.visual(episode.query)), _target(episode)]
        for episode, part in zip(episodes, parts, strict=True)
    ]
    losses = {"lm": 0.0, "contrast": 0.0}
    for group in pocket.assembler.batches(prompts):
        lm, contrast = _losses(pocket, [episodes[i] for i in group], [prompts[i] for i in group])
        total = (lm + _CONTRAST * contrast) * (len(group) / len(episodes))
        total.backward()  # type: ignore[no-untyped-call]
        losses["lm"] += float(lm.detach()) * len(group) / len(episodes)
        losses["contrast"] += float(contrast.detach()) * len(group) / len(episodes)
    vectors.backward(leaf.grad)  # type: ignore[no-untyped-call]
    return losses


def _losses(pocket: FrozenPocket, episodes: list[AimEpisode], prompts: list[Prompt]) -> tuple[Tensor, Tensor]:
    """Return the mean loss of the answers, and of choosing the right candidate by its first token."""
    assembler = pocket.assembler
    batch = assembler.pack(prompts)
    hidden = assembler.forward(batch.embeddings)
    lm = assembler.losses(batch, hidden).mean()
    sizes = torch.tensor([len(assembler.ids(answer_segment(e.candidates[e.right]))) for e in episodes])
    before = hidden[torch.arange(len(episodes)), batch.lengths - sizes - 1]
    logits = pocket.model.lm.head(before)
    contrasts = [
        F.cross_entropy(
            row[[assembler.ids(f" {word}")[0] for word in episode.candidates]][None], torch.tensor([episode.right])
        )
        for row, episode in zip(logits, episodes, strict=True)
        if episode.cell.task != "C"
    ]
    return lm, torch.stack(contrasts).sum() / len(episodes) if contrasts else lm.new_zeros(())


def _target(episode: AimEpisode) -> Text:
    return Text(answer_segment(episode.candidates[episode.right]), True)
