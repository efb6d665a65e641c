"""The bytes of a prompt's key-value cache, by the model's own code: its decoder runs without weights or numbers.

On torch's meta device a forward computes shapes alone. So what the family keeps of a token is counted as its code
keeps it: grouped heads, latent attention, layers that share a cache or keep a window, states of linear attention.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText, DynamicCache

_FEW, _MORE = 19, 23
"""Tokens of two prompts, whose difference is what a token adds."""


@dataclass(frozen=True, slots=True)
class HeldTensor:
    """One tensor of a cache, in numbers; of one prompt."""

    once: int
    """Numbers whatever the prompt is."""
    each_token: int
    each_state: int
    """For each image state that the decoder attends to from outside."""
    window: int | None
    """The last tokens that are kept; None: all."""
    itemsize: int | None
    """Bytes of a number; None: as in the model's dtype."""

    def numbers(self, tokens: int, states: int) -> int:
        kept = tokens if self.window is None else min(tokens, self.window)
        return self.once + self.each_token * kept + self.each_state * states


@dataclass(frozen=True, slots=True)
class KVSizes:
    """What one prompt's cache holds."""

    tensors: Sequence[HeldTensor]

    def bytes(self, tokens: int, states: int, dtype: torch.dtype) -> int:
        """Of a prompt of so many tokens, with so many image states outside it."""
        return sum(held.numbers(tokens, states) * (held.itemsize or dtype.itemsize) for held in self.tensors)


def skeleton(config: Any, **options: Any) -> Any:
    """The model's modules and shapes, without weights; in bfloat16, which every expert's kernel takes, and with
    attention that never looks into a mask."""
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        make: Any = AutoModelForImageTextToText.from_config
        model = make(deepcopy(config), dtype=torch.bfloat16, attn_implementation="eager", **options)
    return model.eval()


def kv_sizes(model: Any, inputs: ProbeInputs) -> KVSizes:
    """Count what a model's cache holds, from the difference that some more tokens or image states make.

    Args:
        model: a `skeleton`.
        inputs: what its decoder takes.

    Raises:
        Exception: its code needs numbers, not shapes alone; any error.
    """
    few, more = list(_cached(model, inputs(_FEW, 1))), list(_cached(model, inputs(_MORE, 1)))
    seeing = list(_cached(model, inputs(_FEW, 2))) if inputs.sees_states else few
    found = []
    for (tensor, window), (longer, _), (wider, _) in zip(few, more, seeing, strict=True):
        token, state = (longer.numel() - tensor.numel()) // (_MORE - _FEW), wider.numel() - tensor.numel()
        once = tensor.numel() - token * _FEW - state
        itemsize = None if tensor.dtype == torch.bfloat16 else tensor.dtype.itemsize
        found.append(HeldTensor(once, token, state, window, itemsize))
    return KVSizes(found)


class ProbeInputs:
    """What a decoder takes besides the cache: token ids. A family whose decoder takes more overrides it."""

    sees_states: ClassVar[bool] = False
    """Whether it caches states of images from outside the prompt."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def __call__(self, tokens: int, states: int) -> Mapping[str, Tensor]:
        """Meta tensors for a prompt of so many tokens and image states."""
        return {"input_ids": torch.zeros(1, tokens, dtype=torch.long, device="meta")}


@torch.no_grad()
def _cached(model: Any, inputs: Mapping[str, Tensor]) -> Iterator[tuple[Tensor, int | None]]:
    """The tensors that a cache holds after a prompt, and the window of each one's layer."""
    cache = DynamicCache(config=model.config.get_text_config(decoder=True))
    model.get_decoder()(**inputs, past_key_values=cache, use_cache=True)
    for layer in cache.layers:
        whole = hasattr(layer, "prefill_keys")  # a window of what comes after the prompt, and all of that
        window = None if whole else getattr(layer, "sliding_window", None)
        for tensor in held(layer):
            yield tensor, None if window is None else window - 1


def held(layer: Any) -> Iterator[Tensor]:
    """The tensors that one layer of a cache holds."""
    for value in vars(layer).values():
        parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else [value]
        yield from (part for part in parts if isinstance(part, Tensor) and part.ndim)
