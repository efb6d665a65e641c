"""The language model while it is trained: frozen weights, fused, with optional LoRA on the attention."""

from collections.abc import Sequence
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aim_backends.pocket.lm import Llama
from aim_sdk.layers import side_by_side

RANK: Final = 32
_FAST_BF16: Final = bool(torch.cpu.get_capabilities().get("avx512_bf16"))
_LINEARS: Final = ("q_proj", "k_proj", "v_proj", "o_proj")


class _Lora(nn.Module):
    """Low-rank updates of one layer's attention; q, k and v share two matrix products."""

    def __init__(self, sizes: dict[str, tuple[int, int]], rank: int) -> None:
        super().__init__()
        self.a = nn.ParameterDict({name: nn.Parameter(torch.randn(rank, i) / i**0.5) for name, (i, _) in sizes.items()})
        self.b = nn.ParameterDict({name: nn.Parameter(torch.zeros(o, rank)) for name, (_, o) in sizes.items()})

    def qkv(self, x: Tensor) -> Tensor:
        """Map ``(B, T, hidden)`` to the update of the fused projection."""
        down = torch.cat([self.a[name] for name in _LINEARS[:3]])
        up = torch.block_diag(*(self.b[name] for name in _LINEARS[:3]))  # type: ignore[no-untyped-call]
        return F.linear(F.linear(x, down), up)

    def out(self, x: Tensor) -> Tensor:
        """Map the heads' output to the update of the output projection."""
        return F.linear(F.linear(x, self.a["o_proj"]), self.b["o_proj"])


class TrainingLM(nn.Module):
    """The same function as `Llama` on right-padded prompts, arranged for fast training on a CPU."""

    def __init__(self, lm: Llama, rank: int = 0) -> None:
        super().__init__()
        self.lm, self.spec = lm, lm.spec
        self.lora = nn.ModuleList()
        self._frozen: list[tuple[Tensor, ...]] = []
        for layer in lm.layers:
            get = layer.get_parameter
            weights = {name: get(f"self_attn.{name}.weight").detach() for name in _LINEARS}
            if rank:
                self.lora.append(_Lora({name: (w.shape[1], w.shape[0]) for name, w in weights.items()}, rank))
            qkv = torch.cat([weights[name] for name in _LINEARS[:3]])
            mlp = torch.cat([get("mlp.gate_proj.weight"), get("mlp.up_proj.weight")]).detach()
            norms = get("input_layernorm.weight").detach(), get("post_attention_layernorm.weight").detach()
            self._frozen.append((qkv, weights["o_proj"], mlp, get("mlp.down_proj.weight").detach(), *norms))

    def embed(self, ids: Tensor) -> Tensor:
        """Map ids ``(...)`` to embeddings ``(..., hidden)``."""
        return self.lm.embed(ids)

    def head(self, hidden: Tensor) -> Tensor:
        """Map hidden states to logits."""
        return self.lm.head(hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Map right-padded embeddings ``(B, T, hidden)`` to hidden states; what stands at padding is meaningless.

        While it is trained, matrices are multiplied in bf16 where the CPU has an instruction for it; otherwise in fp32.
        """
        with torch.autocast("cpu", torch.bfloat16, enabled=_FAST_BF16 and torch.is_grad_enabled()):
            return self._states(x)[-1]

    def layers(self, x: Tensor, layers: Sequence[int]) -> Tensor:
        """Map right-padded embeddings ``(B, T, hidden)`` to chosen layers side by side, numbered as readings' are."""
        return side_by_side(self._states(x), layers)

    def _states(self, x: Tensor) -> list[Tensor]:
        length, hidden = x.shape[1], x.shape[2]
        positions = torch.arange(length)[None]
        cos, sin = self.lm._rotation(positions, x.dtype)
        causal = torch.full((length, length), float("-inf")).triu(1)
        states = [x]
        for number, (qkv, out, mlp, down, norm_in, norm_mid) in enumerate(self._frozen):
            lora = self.lora[number] if self.lora else None
            y = F.rms_norm(x, (hidden,), norm_in, self.spec.norm_eps)
            projected = F.linear(y, qkv)
            if isinstance(lora, _Lora):
                projected = projected + lora.qkv(y)
            heads = self._attend(projected, cos, sin, causal)
            attended = F.linear(heads, out)
            if isinstance(lora, _Lora):
                attended = attended + lora.out(heads)
            x = x + attended
            gate, up = F.linear(F.rms_norm(x, (hidden,), norm_mid, self.spec.norm_eps), mlp).chunk(2, -1)
            x = x + F.linear(F.silu(gate) * up, down)
            states.append(x)
        states[-1] = F.rms_norm(x, (hidden,), self.lm.get_parameter("norm.weight"), self.spec.norm_eps)
        return states

    def _attend(self, projected: Tensor, cos: Tensor, sin: Tensor, causal: Tensor) -> Tensor:
        """Map ``(B, T, (heads + 2 kv) * size)`` to ``(B, T, heads * size)``."""
        spec = self.spec
        split = projected.view(*projected.shape[:2], -1, spec.head_size).transpose(1, 2)  # (B, heads, T, size)
        turned, values = split[:, : -spec.key_value_heads], split[:, -spec.key_value_heads :]
        low, high = turned.chunk(2, -1)
        turned = turned * cos + torch.cat([-high, low], -1) * sin
        queries, keys = turned[:, : spec.heads], turned[:, spec.heads :]
        repeats = spec.heads // spec.key_value_heads
        keys, values = keys.repeat_interleave(repeats, 1), values.repeat_interleave(repeats, 1)
        if torch.is_grad_enabled():  # explicit attention: its backward is faster on a CPU
            scores = torch.matmul(queries * spec.head_size**-0.5, keys.transpose(-1, -2)) + causal
            mixed = scores.softmax(-1) @ values
        else:
            mixed = F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        return mixed.transpose(1, 2).flatten(2)

    def load_lora_state(self, state: dict[str, Tensor]) -> None:
        """Take over what `lora_state` returned."""
        for number, lora in enumerate(self.lora):
            assert isinstance(lora, _Lora)
            for name in _LINEARS:
                lora.a[name].data = state[f"layers.{number}.self_attn.{name}.lora_a"].float()
                lora.b[name].data = state[f"layers.{number}.self_attn.{name}.lora_b"].float()

    def lora_state(self) -> dict[str, Tensor]:
        """Return the updates under the names that `Llama.merge_lora` reads."""
        state = {}
        for number, lora in enumerate(self.lora):
            assert isinstance(lora, _Lora)
            for name in _LINEARS:
                state[f"layers.{number}.self_attn.{name}.lora_a"] = lora.a[name].detach()
                state[f"layers.{number}.self_attn.{name}.lora_b"] = lora.b[name].detach()
        return state
