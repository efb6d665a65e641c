"""Without the language model: draw pooled visual tokens to the embeddings of the name's tokens, and to one another."""

import random
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aim_backends.pocket.connector import Connector
from aim_backends.pocket.model import PocketModel
from benchmarks.pocket.corpus import PictureCorpus

_DROPOUT: Final = 0.15
_POSITIONS: Final = 6  # of 16: cheaper, and the object is not always in the same place
_PARTNER_SHARPNESS: Final = 12.0
_EASY_VQA: Final = 0.12  # share of easy-VQA images in a batch


class Alignment(nn.Module):
    """A softmax over the tokens of all training names: which of them does this image's mean visual token point at?"""

    def __init__(self, model: PocketModel, corpus: PictureCorpus) -> None:
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
        pooled = self._pool(connector, torch.stack([features for features, _ in items]))
        pooled = F.normalize(pooled - self.centre, dim=-1)  # (B, 576)
        wanted = torch.zeros(size, len(self._column))
        for row, (_, name) in enumerate(items):
            for token in self._tokens[name]:
                wanted[row, self._column[token]] += 1 / len(self._tokens[name])
        logits = self.sharpness.exp() * pooled @ self.targets.T
        return -(wanted * logits.log_softmax(-1)).sum(1).mean()

    def _pool(self, connector: Connector, features: Tensor) -> Tensor:
        """Return the mean visual token of each image over a few random positions, ``(B, 576)``."""
        chosen = torch.rand(features.shape[:2]).argsort(1)[:, :_POSITIONS]
        kept = features[torch.arange(len(features))[:, None], chosen].float()
        pooled: Tensor = connector(F.dropout(kept, _DROPOUT)).mean(1)
        return pooled

    def contrast(self, connector: Connector, rng: random.Random, pairs: int) -> Tensor:
        """Return the loss of finding each drawing's partner: the same concept in another style, among ``2 * pairs``."""
        drawn = [self._corpus.draw_pair(rng) for _ in range(pairs)]
        views = [first.features for _, first, _ in drawn] + [second.features for _, _, second in drawn]
        concepts = torch.tensor([concept for concept, _, _ in drawn] * 2)
        pooled = F.normalize(self._pool(connector, torch.stack(views)) - self.centre, dim=-1)
        return partner_loss(pooled, concepts, _PARTNER_SHARPNESS)

    def _item(self, rng: random.Random) -> tuple[Tensor, str]:
        if rng.random() < _EASY_VQA:
            image, name = rng.choice(self._corpus.shapes)
            return self._corpus.easy_vqa.matrix[image], name
        concept = self._corpus.draw_concept(rng)
        return self._corpus.any_view(rng, concept).features, self._corpus.name(concept)


def partner_loss(vectors: Tensor, concepts: Tensor, sharpness: float) -> Tensor:
    """Return the loss of finding a vector's partner, ``len / 2`` further on; others of its concept do not count."""
    number = len(vectors)
    partner = (torch.arange(number) + number // 2) % number
    same = concepts[:, None] == concepts[None]
    same[torch.arange(number), partner] = False
    return F.cross_entropy((sharpness * vectors @ vectors.T).masked_fill(same, float("-inf")), partner)


@torch.no_grad()
def retrieval(model: PocketModel, connector: Connector, corpus: PictureCorpus) -> dict[str, float]:
    """Return the top-1 retrieval of names among the catalogue's, for each split.

    Beside it, without any name: does a drawing in the held-out style find its concept's other one in the split?
    """
    table = model.lm.embed_tokens.weight
    centre = table.mean(0)
    bags = []
    for concept in corpus.concepts[: corpus.catalogued]:
        tokens = model.tokenize(f" {concept.name}")
        bags.append(F.normalize(F.normalize(table[tokens] - centre, dim=-1).mean(0), dim=-1))
    names = torch.stack(bags)
    out = {}
    for label, concepts in (("training concepts", corpus.training), ("held-out concepts", corpus.held_out)):
        known = [concept for concept in concepts if corpus.has_held_out_style(concept)]
        sides = []
        for style in ("held-out style", "training style"):
            views = [
                corpus.held_out_view(c).features if style == "held-out style" else corpus.view(c, corpus.styles(c)[0])
                for c in known
            ]
            pooled = F.normalize(connector(torch.stack(views).float()).mean(1) - centre, dim=-1)
            sides.append(pooled)
            hits = (pooled @ names.T).argmax(1) == torch.tensor(known)
            out[f"{label}, {style}"] = float(hits.float().mean())
        found = (sides[0] @ sides[1].T).argmax(1) == torch.arange(len(known))
        out[f"{label}, drawing to drawing"] = float(found.float().mean())
    return out
