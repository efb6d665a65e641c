"""Stage ``stage0``: without the language model, draw pooled visual tokens to the embeddings of the name's tokens."""

import random
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aim_backends.pocket.connector import Connector
from aim_backends.pocket.model import PocketModel
from benchmarks.pocket.corpus import Corpus

_DROPOUT: Final = 0.15
_EASY_VQA: Final = 0.12  # share of easy-VQA images in a batch


class Alignment(nn.Module):
    """A softmax over the tokens of all training names: which of them does this image's mean visual token point at?"""

    def __init__(self, model: PocketModel, corpus: Corpus) -> None:
        super().__init__()
        self._corpus = corpus
        table = model.lm.embed_tokens.weight
        self.centre = table.mean(0)
        names = {concept.name for concept in corpus.concepts if not concept.held_out} | {n for _, n in corpus.shapes}
        self._tokens = {name: model.tokenize(f" {name}") for name in names}
        vocabulary = sorted({token for tokens in self._tokens.values() for token in tokens})
        self._column = {token: column for column, token in enumerate(vocabulary)}
        self.targets = F.normalize(table[vocabulary] - self.centre, dim=-1)  # (V, 576)
        self.sharpness = nn.Parameter(torch.tensor(2.5))

    def forward(self, connector: Connector, rng: random.Random, size: int) -> Tensor:
        """Return the loss on ``size`` random pictures."""
        items = [self._item(rng) for _ in range(size)]
        features = F.dropout(torch.stack([features for features, _ in items]).float(), _DROPOUT)
        pooled = F.normalize(connector(features).mean(1) - self.centre, dim=-1)  # (B, 576)
        wanted = torch.zeros(size, len(self._column))
        for row, (_, name) in enumerate(items):
            for token in self._tokens[name]:
                wanted[row, self._column[token]] += 1 / len(self._tokens[name])
        logits = self.sharpness.exp() * pooled @ self.targets.T
        return -(wanted * logits.log_softmax(-1)).sum(1).mean()

    def _item(self, rng: random.Random) -> tuple[Tensor, str]:
        if rng.random() < _EASY_VQA:
            image, name = rng.choice(self._corpus.shapes)
            return self._corpus.easy_vqa.matrix[image], name
        concept = self._corpus.draw_concept(rng)
        return self._corpus.any_view(rng, concept).features, self._corpus.name(concept)


@torch.no_grad()
def retrieval(model: PocketModel, connector: Connector, corpus: Corpus) -> dict[str, float]:
    """Return top-1 name retrieval among all concepts of each split."""
    table = model.lm.embed_tokens.weight
    centre = table.mean(0)
    bags = []
    for concept in corpus.concepts:
        tokens = model.tokenize(f" {concept.name}")
        bags.append(F.normalize(F.normalize(table[tokens] - centre, dim=-1).mean(0), dim=-1))
    names = torch.stack(bags)
    out = {}
    for label, concepts in (("training concepts", corpus.training), ("held-out concepts", corpus.held_out)):
        known = [concept for concept in concepts if corpus.has_held_out_style(concept)]
        for style in ("held-out style", "training style"):
            views = [
                corpus.held_out_view(c).features if style == "held-out style" else corpus.view(c, corpus.styles(c)[0])
                for c in known
            ]
            pooled = F.normalize(connector(torch.stack(views).float()).mean(1) - centre, dim=-1)
            hits = (pooled @ names.T).argmax(1) == torch.tensor(known)
            out[f"{label}, {style}"] = float(hits.float().mean())
    return out
