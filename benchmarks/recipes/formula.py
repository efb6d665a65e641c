"""The memory and the time that a training run needs, computed from its settings and its backbone's sizes.

Nothing here is measured, except that `tests/unit/test_recipes.py` compares `kept_by_layer` with what autograd keeps of
tiny models, and the parameters with those of the real configurations. In bfloat16, with n positions, L layers, hidden
size h, inner size f, a heads and g key-value heads of width d, and a vocabulary of V:

* weights: 2 bytes a parameter. Projector: 28 bytes a parameter (weights, gradient, Adam's two moments, start, average,
  best), and h^2 parameters for each layer that it reads.
* what a layer keeps of a row for its backward: (8h + 8ad + 6f) n + 2 n^2 bytes, because no weight learns: two float32
  inputs of norms, the attention's queries, keys, values (repeated for all heads) and output, three parts of the MLP,
  and the mask of a padded batch; 4(a + g)dn more where queries and keys have norms. With `recompute_activations` a
  layer keeps its input, 2hn, and one layer at a time keeps all.
* a forward without a backward needs what one layer keeps, for as long as that layer runs. Teacher, reader and student
  run one after the other: the largest counts.
* logits of an answer of A tokens: 4AV bytes an episode (bfloat16, and their gradient), and 24AV once (float32).
* operations of a forward: 2 for each weight and position, 2 n^2 a d L for causal attention, 2hAV for the logits; a
  backward through frozen weights as many again (twice as many in attention), recomputing them once more.
* hours: operations / (the card's bfloat16 peak x `UTILISATION`); captions, token by token, read all weights for each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from benchmarks.recipes.backbones import Backbone, Decoder, Tower

UTILISATION: Final = 0.3
"""The assumed share of a card's peak, and of its memory's bandwidth."""
FREE: Final = 0.1
"""The share of a card's memory that stays free: CUDA's context, what the allocator cannot use."""
TEXT: Final = 45
"""Tokens of a demonstration without its image: a sentence, and the template around it."""
LONGEST: Final = 130
"""The same at `max_characters` = 400."""
ANSWER: Final = 30
LONGEST_ANSWER: Final = 100
QUERY: Final = 25
"""Tokens around a query's image: its text, the template, what stands before everything."""
CAPTION: Final = 40
"""Tokens of a caption, at most."""
CAPTIONS_AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU, by its data sheet."""

    name: str
    memory: int
    """Bytes."""
    peak: float
    """Dense bfloat16 operations in a second, summed in float32."""
    bandwidth: float
    """Bytes of its memory in a second."""


CARDS: Final = (Card("24 GB (RTX 4090)", 24 << 30, 165e12, 1.01e12), Card("80 GB (A100)", 80 << 30, 312e12, 2.04e12))


@dataclass(frozen=True, slots=True)
class Run:
    """The settings of a run that decide what it needs."""

    backbone: Backbone
    captions: bool
    """Whether the teacher sees captions; else all images, interleaved."""
    fewest: int
    most: int
    """Demonstrations of an episode."""
    steps: int
    batch_size: int
    batches_per_step: int
    recompute: bool
    reading_tokens: int
    layers_read: int
    """By the projector."""

    @property
    def episodes(self) -> int:
        return self.steps * self.batch_size * self.batches_per_step

    @property
    def shots(self) -> float:
        return (self.fewest + self.most) / 2

    def student(self, text: float, answer: float, shots: float) -> float:
        """Positions of an episode with fused tokens."""
        return shots * text + self.backbone.visual_tokens + QUERY + answer

    def teacher(self, text: float, answer: float, shots: float) -> float:
        """Positions of an episode as the teacher sees it."""
        if self.captions:
            return self.student(text + CAPTION, answer, shots)
        image = self.backbone.tokens_of_several or self.backbone.visual_tokens
        return shots * (text + image) + image + QUERY + answer

    @property
    def longest(self) -> int:
        """Positions of the longest prompt with its answer."""
        long = (LONGEST, LONGEST_ANSWER, self.most)
        return round(max(self.student(*long), self.teacher(*long)))


def kept_by_layer(decoder: Decoder, positions: float) -> float:
    """Bytes that one layer keeps of a row of a padded batch for its backward, if no weight learns."""
    normed = 4 * (decoder.heads + decoder.key_value_heads) * decoder.head if decoder.normed_heads else 0
    each = 8 * decoder.hidden + 8 * decoder.heads * decoder.head + normed + 6 * decoder.inner
    return each * positions + 2 * positions**2


def memory(run: Run) -> dict[str, float]:
    """Bytes of a GPU: what is always there, and what the largest forward needs."""
    backbone, decoder = run.backbone, run.backbone.decoder
    long = (LONGEST, LONGEST_ANSWER, run.most)
    logits = LONGEST_ANSWER * decoder.vocabulary
    taught = 1 if run.captions else 1 + run.most
    read = max(1, run.reading_tokens // (backbone.visual_tokens + TEXT))
    forwards = {
        "student": run.batch_size * (_kept(run, run.student(*long)) + 4 * logits) + 24 * logits,
        "teacher": run.batch_size * (kept_by_layer(decoder, run.teacher(*long)) + 2 * logits) + 8 * logits,
        "teacher's images": run.batch_size * _tower_bytes(backbone, taught, several=not run.captions),
        "reader": read * kept_by_layer(decoder, backbone.visual_tokens + LONGEST),
        "reader's images": read * _tower_bytes(backbone, 1),
    }
    largest = max(forwards, key=lambda name: forwards[name])
    return {
        "weights": 2.0 * backbone.parameters,
        "projector": 28.0 * run.layers_read * decoder.hidden**2,
        f"largest forward ({largest})": forwards[largest],
    }


def _kept(run: Run, positions: float) -> float:
    """What all layers keep of a row."""
    decoder = run.backbone.decoder
    layer = kept_by_layer(decoder, positions)
    return decoder.layers * 2 * decoder.hidden * positions + layer if run.recompute else decoder.layers * layer


def _tower_bytes(backbone: Backbone, images: int, *, several: bool = False) -> float:
    """What one layer of the tower works on, some 40 bytes for each number of a patch; no gradient reaches it."""
    tower = backbone.tower
    return images * _views(backbone, several) * tower.patches * 40 * tower.hidden


def _views(backbone: Backbone, several: bool) -> int:
    return backbone.views_of_several or backbone.tower.views if several else backbone.tower.views


def work(run: Run) -> dict[str, float]:
    """Operations of one episode, on average: every demonstration is read once, no reading comes from the disk."""
    backbone, decoder = run.backbone, run.backbone.decoder
    usual = (TEXT, ANSWER, run.shots)
    logits = 2 * decoder.hidden * decoder.vocabulary * ANSWER
    image = _seen(backbone.tower, backbone.tower.views)
    passes = 3 if run.recompute else 2
    weights, attention = _forward(decoder, run.student(*usual))
    student = passes * weights + (passes + 1) * attention + passes * logits + image
    taught = 1 if run.captions else 1 + run.shots
    teacher = sum(_forward(decoder, run.teacher(*usual))) + logits
    teacher += taught * _seen(backbone.tower, _views(backbone, several=not run.captions))
    reading = run.shots * (sum(_forward(decoder, backbone.visual_tokens + TEXT)) + image)
    captions = run.shots * (sum(_forward(decoder, backbone.visual_tokens + QUERY)) + image) if run.captions else 0.0
    return {"reading": reading, "student": student, "teacher": teacher + captions}


def _forward(decoder: Decoder, positions: float) -> tuple[float, float]:
    """Operations with weights, and of causal attention."""
    attention = 2 * positions**2 * decoder.heads * decoder.head * decoder.layers
    return 2 * decoder.weights * positions, attention


def _seen(tower: Tower, views: int) -> float:
    """Operations of one image."""
    return views * (2 * tower.weights * tower.patches + 4 * tower.patches**2 * tower.hidden * tower.layers)


def hours(run: Run, card: Card) -> float:
    """The whole run on one card, without its evaluations and without waiting for the corpus."""
    seconds = sum(work(run).values()) / card.peak
    if run.captions:
        seconds += run.shots * CAPTION * 2 * run.backbone.parameters / CAPTIONS_AT_ONCE / card.bandwidth
    return run.episodes * seconds / UTILISATION / 3600


def reading_bytes(run: Run) -> float:
    """Disk space of the run's readings, if all are kept: hidden states in bfloat16."""
    return run.episodes * run.shots * TEXT * 2 * run.layers_read * run.backbone.decoder.hidden
