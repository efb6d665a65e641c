"""Readings of single demonstrations by the frozen model, and prompts that carry them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from aim_sdk.projectors import CarrierProjector
from benchmarks.pocket.aim_episodes import AimEpisode, AimEpisodeMaker, PictureKey
from benchmarks.pocket.prompts import (
    PROMPT_SUFFIX,
    Assembler,
    Embedded,
    Prompt,
    Segment,
    Text,
    answer_segment,
    ask,
    question_segment,
)
from benchmarks.pocket.training_lm import TrainingLM

_CARRIER, _AFTER = PROMPT_SUFFIX[:1], PROMPT_SUFFIX[1:]  # the newline where the image stood

ReadingKey = tuple[PictureKey | None, str]  # picture (None: read without its image), question


class Reader:
    """Reads demonstrations up to the token before their answer, each once.

    In a causal model that reading does not depend on the answer, so it can be shared between episodes.
    """

    def __init__(self, assembler: Assembler, lm: TrainingLM, maker: AimEpisodeMaker, layers: Sequence[int]) -> None:
        self._assembler, self._lm, self._maker, self._layers = assembler, lm, maker, layers
        self._readings: dict[ReadingKey, Tensor] = {}

    def read(self, keys: Sequence[ReadingKey]) -> list[Tensor]:
        """Return the hidden states ``(layers * 576,)`` at the token before the answer, for each key."""
        missing = [key for key in dict.fromkeys(keys) if key not in self._readings]
        prompts = [self._prompt(*key) for key in missing]
        with torch.no_grad():
            for group in self._assembler.batches(prompts):
                batch = self._assembler.pack([prompts[index] for index in group])
                hidden = self._lm.layers(batch.embeddings, self._layers)
                last = hidden[torch.arange(len(group)), batch.lengths - 1]
                self._readings |= {missing[index]: state for index, state in zip(group, last, strict=True)}
        return [self._readings[key] for key in keys]

    def _prompt(self, picture: PictureKey | None, question: str) -> Prompt:
        if picture is None:
            return [Text(question_segment(question)), Text(PROMPT_SUFFIX)]
        return ask(question, self._maker.visual(picture))


def keys_of(episode: AimEpisode, images: bool = True) -> list[ReadingKey]:
    """List what must be read for an episode's demonstrations."""
    return [(shown.picture if images else None, episode.question) for shown in episode.shown]


def carriers(projector: CarrierProjector, hidden: Tensor, newline: Tensor) -> Tensor:
    """Map readings ``(n, layers * 576)`` to the embeddings of the carrier tokens ``(n, 576)``."""
    gate = torch.sigmoid(projector.gate)
    return (1 - gate) * newline + gate * projector.value(hidden)


def newline_embedding(assembler: Assembler) -> Tensor:
    """Return the embedding that a carrier replaces, ``(576,)``."""
    (token,) = assembler.ids(_CARRIER)
    return assembler.model.lm.embed(torch.tensor(token))


def carried(episode: AimEpisode, vectors: Tensor, query: Segment) -> Prompt:
    """Return the prompt of fused tokens and the query; ``vectors`` is ``(k, 576)``."""
    prompt: Prompt = []
    for shown, vector in zip(episode.shown, vectors, strict=True):
        middle: Prompt = [Text(question_segment(episode.question)), Embedded(vector[None]), Text(_AFTER)]
        prompt += [*middle, Text(answer_segment(shown.answer))]
    return [*prompt, *ask(episode.question, query)]
