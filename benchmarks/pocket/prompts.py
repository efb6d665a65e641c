"""Prompts as lists of segments, and how a batch of them is embedded, trained on, and answered."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from aim_backends.pocket.connector import Connector
from aim_backends.pocket.model import PocketModel
from aim_backends.pocket.vision import VISUAL_TOKENS

PROMPT_SUFFIX: Final = "\nAnswer:"
"""What stands between a question's image and its answer."""
_IGNORED: Final = -100
_TOKENS_A_BATCH: Final = 1400
_BUCKET: Final = 8


@dataclass(frozen=True)
class Text:
    """Text tokens; the loss falls on them where they are a target."""

    text: str
    target: bool = False


@dataclass(frozen=True, eq=False)
class Visual:
    """An image: features ``(16, 1416)``, from which the connector makes 16 visual tokens."""

    features: Tensor


@dataclass(frozen=True, eq=False)
class Embedded:
    """Vectors that stand in the prompt as they are, ``(tokens, 576)``."""

    vectors: Tensor


Segment = Text | Visual | Embedded
Prompt = list[Segment]
Forward = Callable[[Tensor], Tensor]


def question_segment(text: str) -> str:
    """Return what stands before the image."""
    return f"Question: {text}\n"


def answer_segment(answer: str) -> str:
    """Return what stands after `PROMPT_SUFFIX` in a demonstration."""
    return f" {answer}\n"


def ask(question: str, content: Segment) -> Prompt:
    """Return a query: question, content (an image, or text in its place), ``Answer:``."""
    return [Text(question_segment(question)), content, Text(PROMPT_SUFFIX)]


def show(question: str, content: Segment | None, answer: str, target: bool = False) -> Prompt:
    """Return a demonstration."""
    inner = [] if content is None else [content]
    return [Text(question_segment(question)), *inner, Text(PROMPT_SUFFIX), Text(answer_segment(answer), target)]


@dataclass(frozen=True)
class PromptBatch:
    """Right-padded prompts: embeddings ``(B, T, 576)``, labels ``(B, T)``, lengths ``(B,)``."""

    embeddings: Tensor
    labels: Tensor
    lengths: Tensor


class Assembler:
    """Turns prompts into batches and reads answers off the language model."""

    def __init__(self, model: PocketModel, connector: Connector, forward: Forward) -> None:
        self.model, self.connector, self.forward = model, connector, forward
        self._ids: dict[str, list[int]] = {}

    def ids(self, text: str) -> list[int]:
        """Tokenise one segment, remembering the result."""
        if text not in self._ids:
            self._ids[text] = self.model.tokenize(text)
        return self._ids[text]

    def length(self, prompt: Prompt) -> int:
        """Count tokens, BOS included."""
        return 1 + sum(self._length(segment) for segment in prompt)

    def pack(self, prompts: Sequence[Prompt]) -> PromptBatch:
        """Embed prompts and pad them on the right."""
        visuals = [segment.features for prompt in prompts for segment in prompt if isinstance(segment, Visual)]
        tokens = iter(self.connector(torch.stack(visuals).float())) if visuals else iter(())
        rows = [torch.cat([self._bos(), *(self._embed(s, tokens) for s in prompt)]) for prompt in prompts]
        lengths = torch.tensor([len(row) for row in rows])
        width = int(-(-lengths.max() // _BUCKET) * _BUCKET)
        embeddings = torch.stack([F.pad(row, (0, 0, 0, width - len(row))) for row in rows])
        labels = torch.full((len(rows), width), _IGNORED)
        for row, prompt in enumerate(prompts):
            self._label(labels[row], prompt)
        return PromptBatch(embeddings, labels, lengths)

    def batches(self, prompts: Sequence[Prompt]) -> Iterator[list[int]]:
        """Yield groups of prompts of like length, by index."""
        order = sorted(range(len(prompts)), key=lambda index: self.length(prompts[index]))
        group: list[int] = []
        for index in order:
            if group and (len(group) + 1) * self.length(prompts[index]) > _TOKENS_A_BATCH:
                yield group
                group = []
            group.append(index)
        if group:
            yield group

    def backward(self, prompts: Sequence[Prompt], weight: float = 1.0) -> float:
        """Add the gradient of the mean loss over all target tokens; return the loss."""
        targets = sum(len(self.ids(s.text)) for p in prompts for s in p if isinstance(s, Text) and s.target)
        total = 0.0
        for group in self.batches(prompts):
            batch = self.pack([prompts[index] for index in group])
            loss = self.losses(batch, self.forward(batch.embeddings)).sum() / targets
            (weight * loss).backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        return total

    def losses(self, batch: PromptBatch, hidden: Tensor) -> Tensor:
        """Return the loss of every target token."""
        chosen = batch.labels[:, 1:] != _IGNORED
        logits = self.model.lm.head(hidden[:, :-1][chosen])
        return F.cross_entropy(logits, batch.labels[:, 1:][chosen], reduction="none")

    def _bos(self) -> Tensor:
        return self.model.lm.embed(torch.tensor(self.model.opening_ids))

    def _embed(self, segment: Segment, visuals: Iterator[Tensor]) -> Tensor:
        if isinstance(segment, Text):
            return self.model.lm.embed(torch.tensor(self.ids(segment.text)))
        return next(visuals) if isinstance(segment, Visual) else segment.vectors

    def _length(self, segment: Segment) -> int:
        if isinstance(segment, Text):
            return len(self.ids(segment.text))
        return VISUAL_TOKENS if isinstance(segment, Visual) else len(segment.vectors)

    def _label(self, row: Tensor, prompt: Prompt) -> None:
        at = 1
        for segment in prompt:
            size = self._length(segment)
            if isinstance(segment, Text) and segment.target:
                row[at : at + size] = torch.tensor(self.ids(segment.text))
            at += size
