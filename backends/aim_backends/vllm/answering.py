"""How a vLLM server is asked to generate as transformers does."""

from __future__ import annotations

from typing import Any, Final

from pydantic import Field
from transformers import GenerationConfig

from aim_backends.hf.backbone import Backbone
from aim_backends.hf.decoding import Decoding
from aim_backends.shared.decoding import Sampling

_TOP_K: Final = 50
"""What transformers samples from, where neither the caller nor the checkpoint says."""


class ServerSampling(Sampling):
    """The options that a server can follow."""

    temperature: float = Field(default=1.0, gt=0, le=2)
    top_k: int | None = Field(default=None, ge=0)


class Answering:
    """Knows a checkpoint's own settings of generation, so that nothing is left to a server's.

    Args:
        backbone: the checkpoint's configuration and processor.
    """

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self._defaults = _defaults(backbone)
        ends = self._defaults.eos_token_id
        self._ends = frozenset(ends if isinstance(ends, list) else [] if ends is None else [ends])

    def decoding(self, stop: str | None) -> Decoding:
        """What an answer is made of its tokens."""
        return Decoding(self._backbone, 0, stop, self._ends, None, {})

    def options(self, generation: dict[str, Any], max_new_tokens: int, *, fused: bool) -> dict[str, Any]:
        """The caller's options as fields of a request.

        Raises:
            InputError: one is unknown, or its value is wrong.
        """
        sampling, own = ServerSampling.parse(generation, "vllm"), self._defaults
        top_k = next(k for k in (sampling.top_k, own.top_k, _TOP_K) if k is not None)
        never = [*(own.suppress_tokens or ()), *([self._backbone.slot] if fused else [])]
        made: dict[str, Any] = {
            "max_tokens": max_new_tokens,
            "temperature": sampling.temperature if sampling.do_sample else 0.0,
            "top_p": sampling.top_p,
            "top_k": top_k if sampling.do_sample else 0,
            "min_p": 0.0,
            "repetition_penalty": own.repetition_penalty or 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "logit_bias": {str(token): -100.0 for token in never},
            "stop_token_ids": sorted(self._ends),
        }
        return made if sampling.seed is None else made | {"seed": sampling.seed}


def _defaults(backbone: Backbone) -> GenerationConfig:
    """The settings that the checkpoint brings; a model without weights has not read them."""
    try:
        return GenerationConfig.from_pretrained(backbone.source)
    except OSError:  # it has none
        found: GenerationConfig = backbone.model.generation_config
        return found
