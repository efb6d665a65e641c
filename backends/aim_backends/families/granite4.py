"""Granite 4 Vision."""

from __future__ import annotations

from typing import Any

from transformers import DynamicCache

from aim_backends.families.scaled import ScaledLogits
from aim_backends.hf.roles import SpecialTokens


class Granite4Vision(ScaledLogits):
    """Its model keeps no cache unless it is given one (transformers 5.23): a prompt could not be continued."""

    def __init__(self, model: Any, processor: Any, source: str, special_tokens: SpecialTokens = "refuse") -> None:
        super().__init__(model, processor, source, special_tokens)
        model.get_decoder().register_forward_pre_hook(_with_cache, with_kwargs=True)


def _with_cache(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if not kwargs.get("use_cache") or kwargs.get("past_key_values") is not None:
        return None
    return args, {**kwargs, "past_key_values": DynamicCache(config=module.config)}
