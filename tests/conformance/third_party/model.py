"""Kite: a causal byte-level transformer that sees images of many sizes. It knows nothing of AIM."""

import numpy as np
import torch
import torch.nn.functional as F
from PIL.Image import Image
from torch import Tensor, nn

BOS, END, SYSTEM, USER, ASSISTANT, SLOT, VOCABULARY = 256, 257, 258, 259, 260, 261, 262
WIDTH, HEADS, LAYERS, CONTEXT = 32, 4, 2, 2048
PATCH, LONGEST = 8, 48
"""Pixels of a patch's side, and of the longest side of an image: one visual token a patch."""

Cache = list[tuple[Tensor, Tensor]]


def encode(text: str) -> list[int]:
    return list(text.encode())


def decode(ids: list[int]) -> str:
    return bytes(i for i in ids if i < BOS).decode(errors="replace")


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))

    def forward(
        self, x: Tensor, allowed: Tensor, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        rows, tokens, _ = x.shape
        queries, keys, values = self.qkv(self.norms[0](x)).view(rows, tokens, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        if past is not None:
            keys, values = torch.cat([past[0], keys], 2), torch.cat([past[1], values], 2)
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=allowed[:, None])
        x = x + self.out(attended.transpose(1, 2).reshape(rows, tokens, WIDTH))
        return x + self.mlp(self.norms[1](x)), (keys, values)


class KiteModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, WIDTH)
        self.positions = nn.Embedding(CONTEXT, WIDTH)
        self.vision = nn.Linear(PATCH * PATCH * 3, WIDTH)
        self.rows, self.columns = nn.Embedding(8, WIDTH), nn.Embedding(8, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=1.5 * parameter.shape[1] ** -0.5, generator=generator)
        for module in self.modules():
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        self.requires_grad_(False)

    def see(self, image: Image) -> Tensor:
        """One visual token for each patch of the image, whose shape is kept."""
        scale = LONGEST / max(image.size)
        width, height = (max(1, round(side * scale / PATCH)) for side in image.size)
        pixels = np.asarray(image.resize((width * PATCH, height * PATCH)), dtype=np.float32) / 127.5 - 1
        cut = torch.from_numpy(pixels).view(height, PATCH, width, PATCH, 3).transpose(1, 2)
        patches = self.vision(cut.reshape(height, width, -1).to(self.vision.weight))
        return (patches + self.rows.weight[:height, None] + self.columns.weight[:width]).flatten(0, 1)

    def embed(self, ids: list[int]) -> Tensor:
        return self.tokens(torch.tensor(ids, dtype=torch.long, device=self.tokens.weight.device))

    def window(self, causal: Tensor) -> Tensor:
        return causal

    def places(self, mask: Tensor) -> Tensor:
        return (mask.cumsum(1) - 1).clamp(min=0)

    def forward(
        self, x: Tensor, mask: Tensor, cache: Cache | None = None, states: list[Tensor] | None = None
    ) -> tuple[Tensor, Cache]:
        """Run ``(rows, tokens, width)`` after a cache; ``mask`` ``(rows, past + tokens)`` is True on real tokens.

        ``states`` takes what enters the first block and what leaves every one, the last after the final norm.
        """
        tokens, past = x.shape[1], mask.shape[1] - x.shape[1]
        x = x + self.positions(self.places(mask)[:, past:])
        causal = torch.ones(tokens, past + tokens, dtype=torch.bool, device=x.device).tril(past)
        itself = torch.eye(past + tokens, dtype=torch.bool, device=x.device)[past:]
        allowed = (self.window(causal) & mask[:, None]) | itself
        longer: Cache = []
        passed = [x]
        for i, block in enumerate(self.blocks):
            x, entry = block(x, allowed, cache[i] if cache else None)
            longer.append(entry)
            passed.append(x)
        passed[-1] = self.norm(x)
        if states is not None:
            states += passed
        return passed[-1], longer
