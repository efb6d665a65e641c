"""The inner language model: a Llama decoder in plain torch.

It takes embeddings and returns the hidden states after the last normalisation: a reader wants the states, a
connector and a projector make the embeddings, and only a few positions need the (large) head. Positions come from
the attention mask, so a prompt gives the same states wherever its padding stands.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from aim_backends.pocket.cache import KVCache

_FEW_ROWS: Final = 8
"""Rows of a CPU product in fp32 that are quicker as columns."""


@dataclass(frozen=True)
class LlamaSpec:
    """Sizes of the decoder; the defaults are SmolLM2-135M's."""

    vocabulary: int = 49152
    hidden: int = 576
    intermediate: int = 1536
    layers: int = 30
    heads: int = 9
    key_value_heads: int = 3
    head_size: int = 64
    rope_theta: float = 100_000.0
    norm_eps: float = 1e-5
    context: int = 8192


class _RMSNorm(nn.Module):
    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(size)), eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


def _linear(x: Tensor, weight: Tensor) -> Tensor:
    """Return ``x @ weight.T``, as columns if they are few: a batch is decoded in down to half the time."""
    rows = x.numel() // x.shape[-1]
    if not 1 < rows <= _FEW_ROWS or x.dtype != torch.float32 or not x.is_cpu:
        return F.linear(x, weight)
    columns = weight @ x.reshape(rows, -1).t()
    return columns.t().contiguous().view(*x.shape[:-1], -1)


class _Linear(nn.Linear):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        return _linear(input, self.weight)


class _Attention(nn.Module):
    def __init__(self, spec: LlamaSpec, layer: int) -> None:
        super().__init__()
        self.spec, self.layer = spec, layer
        queries, keys = spec.heads * spec.head_size, spec.key_value_heads * spec.head_size
        self.q_proj = _Linear(spec.hidden, queries)
        self.k_proj = _Linear(spec.hidden, keys)
        self.v_proj = _Linear(spec.hidden, keys)
        self.o_proj = _Linear(queries, spec.hidden)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], mask: Tensor | None, cache: KVCache | None) -> Tensor:
        """``x`` is ``(B, T, hidden)``; ``mask`` is ``(B, 1, groups * T, T_total)``, or None if all may be seen."""
        queries, keys = self._queries_and_keys(x, rotation)
        values = self._split(self.v_proj(x))
        if cache is not None:
            keys, values = cache.extend(self.layer, keys, values)
        # The queries that share a key head are stacked, as more tokens: no copies of the keys are needed.
        grouped = queries.reshape(len(x), self.spec.key_value_heads, -1, self.spec.head_size)
        out = F.scaled_dot_product_attention(grouped, keys, values, attn_mask=mask).view(queries.shape)
        result: Tensor = self.o_proj(out.transpose(1, 2).flatten(2))
        return result

    def weights(self, x: Tensor, rotation: tuple[Tensor, Tensor], last: int) -> Tensor:
        """Return the attention of the ``last`` positions of unpadded prompts, their mean and the heads', ``(B, T)``."""
        queries, keys = self._queries_and_keys(x, rotation)
        grouped = queries[:, :, -last:].reshape(len(x), self.spec.key_value_heads, -1, self.spec.head_size)
        scores = (grouped @ keys.transpose(2, 3)).float() * self.spec.head_size**-0.5  # (B, groups, heads * last, T)
        seen = torch.ones(last, x.shape[1], dtype=torch.bool, device=x.device).tril(x.shape[1] - last)
        seen = seen.repeat(self.spec.heads // self.spec.key_value_heads, 1)
        out: Tensor = scores.masked_fill(~seen, -torch.inf).softmax(-1).mean((1, 2))
        return out

    def _queries_and_keys(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return _rotate(self._split(self.q_proj(x)), rotation), _rotate(self._split(self.k_proj(x)), rotation)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], -1, self.spec.head_size).transpose(1, 2)  # (B, heads, T, head_size)


def _rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = rotation
    return torch.addcmul(x.roll(x.shape[-1] // 2, -1) * sin, x, cos)


class _MLP(nn.Module):
    def __init__(self, spec: LlamaSpec) -> None:
        super().__init__()
        self.gate_proj = _Linear(spec.hidden, spec.intermediate)
        self.up_proj = _Linear(spec.hidden, spec.intermediate)
        self.down_proj = _Linear(spec.intermediate, spec.hidden)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class _Layer(nn.Module):
    def __init__(self, spec: LlamaSpec, layer: int) -> None:
        super().__init__()
        self.input_layernorm = _RMSNorm(spec.hidden, spec.norm_eps)
        self.self_attn = _Attention(spec, layer)
        self.post_attention_layernorm = _RMSNorm(spec.hidden, spec.norm_eps)
        self.mlp = _MLP(spec)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], mask: Tensor | None, cache: KVCache | None) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rotation, mask, cache)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Llama(nn.Module):
    """A frozen Llama decoder with tied embeddings; its parameters carry transformers' names without ``model.``."""

    def __init__(self, spec: LlamaSpec | None = None) -> None:
        super().__init__()
        self.spec = spec or LlamaSpec()
        self.embed_tokens = nn.Embedding(self.spec.vocabulary, self.spec.hidden)
        self.layers = nn.ModuleList(_Layer(self.spec, index) for index in range(self.spec.layers))
        self.norm = _RMSNorm(self.spec.hidden, self.spec.norm_eps)
        self.recompute = False
        """Whether activations are computed again in the backward, instead of being kept."""
        self.requires_grad_(False)

    @classmethod
    def from_state(
        cls, state: Mapping[str, Tensor], spec: LlamaSpec | None = None, dtype: torch.dtype = torch.float32
    ) -> Self:
        """Build from a ``LlamaForCausalLM`` state dict without initialising the weights first."""
        with torch.device("meta"):
            model = cls(spec)
        own = {
            name.removeprefix("model."): tensor.to(dtype) for name, tensor in state.items() if name != "lm_head.weight"
        }
        model.load_state_dict(own, assign=True)
        return model.requires_grad_(False).eval()

    def embed(self, ids: Tensor) -> Tensor:
        """Map ids ``(B, T)`` to embeddings ``(B, T, hidden)``."""
        out: Tensor = self.embed_tokens(ids)
        return out

    def head(self, hidden: Tensor) -> Tensor:
        """Map hidden states ``(..., hidden)`` to logits ``(..., vocabulary)``."""
        return _linear(hidden, self.embed_tokens.weight)

    def forward(
        self, embeddings: Tensor, *, attention_mask: Tensor | None = None, cache: KVCache | None = None
    ) -> Tensor:
        """Return the last hidden states, after the final normalisation, ``(B, T, hidden)``.

        ``attention_mask`` is ``(B, T_total)``, 1 for tokens and 0 for padding on either side, and covers the cached
        tokens too. A given ``cache`` is extended by the new tokens.
        """
        rotation, mask = self._surroundings(embeddings, attention_mask, len(cache) if cache is not None else 0)
        x = embeddings
        for layer in self.layers:
            if self.recompute and cache is None and torch.is_grad_enabled():
                x = checkpoint(layer, x, rotation, mask, None, use_reentrant=False, preserve_rng_state=False)
            else:
                x = layer(x, rotation, mask, cache)
        out: Tensor = self.norm(x)
        return out

    def states(self, embeddings: Tensor, attention_mask: Tensor) -> list[Tensor]:
        """Return the embeddings and what every layer makes of them, the last after the final normalisation."""
        rotation, mask = self._surroundings(embeddings, attention_mask, 0)
        found = [embeddings]
        for layer in self.layers:
            found.append(layer(found[-1], rotation, mask, None))
        return [*found[:-1], self.norm(found[-1])]

    @torch.no_grad()
    def attention(self, embeddings: Tensor, last: int) -> Tensor:
        """Return the attention of the ``last`` positions, their mean and the heads', ``(layers, B, T)``, in float32.

        The layers run as always; the weights, which they never hold, are computed in addition for these positions.
        """
        rotation, mask = self._surroundings(embeddings, None, 0)
        x, found = embeddings, []
        for layer in self.layers:
            assert isinstance(layer, _Layer)
            found.append(layer.self_attn.weights(layer.input_layernorm(x), rotation, last))
            x = layer(x, rotation, mask, None)
        return torch.stack(found)

    @torch.no_grad()
    def merge_lora(self, state: Mapping[str, Tensor]) -> None:
        """Add ``lora_b @ lora_a`` to each weight that ``state`` names (``<linear>.lora_a``, ``<linear>.lora_b``)."""
        for name in state:
            if name.endswith(".lora_a"):
                linear = name.removesuffix(".lora_a")
                weight = self.get_parameter(f"{linear}.weight")
                update = state[f"{linear}.lora_b"].float() @ state[name].float()
                weight.copy_((weight.float() + update.to(weight.device)).to(weight.dtype))

    def _surroundings(
        self, embeddings: Tensor, attention_mask: Tensor | None, past: int
    ) -> tuple[tuple[Tensor, Tensor], Tensor | None]:
        """Return what every layer takes besides its input: the rotation of positions, and the mask.

        Of the rotation's sines the first half is negative: there they are subtracted.
        """
        batch, length = embeddings.shape[:2]
        if attention_mask is not None and bool(attention_mask.all()):
            attention_mask = None
        positions = _positions(attention_mask, batch, past, length, embeddings.device)
        mask = _attention_mask(attention_mask, past, length, embeddings.device)
        if mask is not None:  # added to the scores: from a bool, it would be built again in every layer
            mask = mask.repeat(1, 1, self.spec.heads // self.spec.key_value_heads, 1)
            mask = torch.zeros_like(mask, dtype=embeddings.dtype).masked_fill(~mask, -torch.inf)
        cos, sin = self._rotation(positions, embeddings.dtype)
        low, high = sin.chunk(2, -1)
        return (cos, torch.cat([-low, high], -1)), mask

    def _rotation(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return cos and sin, ``(B, 1, T, head_size)``."""
        steps = torch.arange(0, self.spec.head_size, 2, device=positions.device).float() / self.spec.head_size
        angles = positions[:, None, :, None].float() * self.spec.rope_theta**-steps
        angles = torch.cat([angles, angles], -1)
        return angles.cos().to(dtype), angles.sin().to(dtype)


def _positions(mask: Tensor | None, batch: int, past: int, length: int, device: torch.device) -> Tensor:
    """Return ``(B, T)``: the number of real tokens before each token."""
    if mask is None:
        return torch.arange(past, past + length, device=device).expand(batch, -1)
    return (mask.long().cumsum(1) - 1).clamp(min=0)[:, past:]


def _attention_mask(mask: Tensor | None, past: int, length: int, device: torch.device) -> Tensor | None:
    """Return ``bool (B or 1, 1, T, past + T)``; None if one new token may see all."""
    if mask is None and length == 1:
        return None
    keys = torch.arange(past + length, device=device)
    queries = keys[past:, None]
    allowed = (keys <= queries)[None]
    if mask is not None:
        allowed = (allowed & mask.bool()[:, None, :]) | (keys == queries)  # padding sees itself: no empty softmax
    return allowed[:, None]
