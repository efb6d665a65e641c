"""A byte-level causal transformer that sees images as four projected patches. Its weights are random but fixed."""

import numpy as np
import torch
import torch.nn.functional as F
from PIL.Image import Image
from torch import Tensor, nn

BOS, EOS, SYSTEM, USER, ASSISTANT, VOCABULARY = 256, 257, 258, 259, 260, 261
WIDTH, HEADS, LAYERS, CONTEXT = 32, 4, 2, 2048
PRINTABLE = [*range(32, 127), ord("\n"), EOS]

Cache = list[tuple[Tensor, Tensor]]


def encode(text: str) -> list[int]:
    """UTF-8 bytes: the tokens of texts that are joined are the tokens of their parts, joined."""
    return list(text.encode())


def decode(ids: list[int]) -> str:
    return bytes(i for i in ids if i < BOS).decode(errors="replace")


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: Tensor, past: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        queries, keys, values = self.qkv(self.norms[0](x)).view(len(x), 3, HEADS, -1).permute(1, 2, 0, 3)
        if past is not None:
            keys, values = (
                torch.cat([past[0], keys], 1),
                torch.cat([past[1], values], 1),
            )  # (heads, tokens, width/heads)
        shape = queries.shape[1], keys.shape[1]
        causal = torch.ones(shape, dtype=torch.bool, device=x.device).tril(shape[1] - shape[0])
        attended = F.scaled_dot_product_attention(queries[None], keys[None], values[None], attn_mask=causal)[0]
        x = x + self.out(attended.transpose(0, 1).reshape(len(x), WIDTH))
        return x + self.mlp(self.norms[1](x)), (keys, values)


class EchoModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, WIDTH)
        self.positions = nn.Embedding(CONTEXT, WIDTH)
        self.vision = nn.Linear(4 * 4 * 3, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5, generator=generator)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        self.requires_grad_(False)

    def see(self, image: Image) -> Tensor:
        """Four visual tokens: the quarters of the image at 8 x 8 pixels."""
        pixels = torch.from_numpy(np.asarray(image.resize((8, 8)), dtype=np.float32) / 127.5 - 1)
        patches = pixels.view(2, 4, 2, 4, 3).transpose(1, 2).reshape(4, -1)
        return self.vision(patches.to(self.vision.weight))

    def embed(self, ids: list[int]) -> Tensor:
        return self.tokens(torch.tensor(ids, dtype=torch.long, device=self.tokens.weight.device))

    def forward(
        self, embeddings: Tensor, cache: Cache | None = None, layers: list[Tensor] | None = None
    ) -> tuple[Tensor, Cache]:
        """Run tokens after those in the cache; return their last hidden states and the longer cache.

        ``layers`` takes what enters the first block and what leaves every one; the last through the final norm.
        """
        start = cache[0][0].shape[1] if cache else 0
        x = embeddings + self.positions.weight[start : start + len(embeddings)]
        longer, passed = [], []
        for i, block in enumerate(self.blocks):
            passed.append(x)
            x, entry = block(x, cache[i] if cache else None)
            longer.append(entry)
        last = self.norm(x)
        if layers is not None:
            layers += [*passed, last]
        return last, longer

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden @ self.tokens.weight.T
