"""From a prompt that has been run to the tokens of its answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from aim_backends.pocket.cache import KVCache
from aim_backends.pocket.model import PocketModel
from aim_sdk.errors import InputError, problem, unknown
from aim_sdk.support.finite import not_finite

END_TOKENS: Final = ("<|im_end|>", "<|endoftext|>")
_LOST: Final = -1
"""Instead of a token whose logits are NaN or infinite: it comes to the host with the tokens."""


class Sampling(BaseModel):
    """How the next token is chosen; greedy by default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    do_sample: bool = False
    temperature: float = Field(default=1.0, gt=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    seed: int | None = None

    @classmethod
    def parse(cls, options: dict[str, Any]) -> Sampling:
        """Validate generation options by name and value."""
        for name in options:
            if name not in cls.model_fields:
                raise InputError(f"pocket: {unknown('generation option', name, cls.model_fields)}")
        try:
            return cls(**options)
        except ValidationError as error:
            raise InputError(f"{problem(error)}.") from error


@dataclass(frozen=True, slots=True)
class Prefilled:
    """Prompts that have been run."""

    cache: KVCache
    mask: Bool[Tensor, "batch tokens"]
    """True on real tokens; padding stands on the left of each part."""
    last: Float[Tensor, "batch one hidden"]
    """Last hidden states at the last position."""


def decode(
    model: PocketModel, prompt: Prefilled, stop: str | None, max_new_tokens: int, sampling: Sampling
) -> Iterator[tuple[list[int | None], Tensor]]:
    """Yield one token per row and step (None for rows that have ended) with its logits ``(batch, vocabulary)``."""
    ends = {model.tokenizer.token_to_id(token) for token in END_TOKENS}
    mask = prompt.mask
    logits = model.lm.head(prompt.last[:, -1])
    generator = None if sampling.seed is None else torch.Generator(mask.device).manual_seed(sampling.seed)
    rows: list[list[int]] = [[] for _ in mask]
    ended = [False] * len(rows)
    for left in range(max_new_tokens, 0, -1):
        tokens = _choose(logits.float(), sampling, generator)
        chosen = [None if over else int(token) for over, token in zip(ended, tokens.tolist(), strict=True)]
        if _LOST in chosen:
            error = not_finite("the backbone's logits", logits.dtype)
            error.query = chosen.index(_LOST)
            raise error
        yield chosen, logits
        for i, token in enumerate(chosen):
            if token is not None:
                rows[i].append(token)
                text = model.decode(rows[i])
                ended[i] = token in ends or bool(stop and stop in text.lstrip())
        if all(ended) or left == 1:
            return
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        hidden = model.lm(model.lm.embed(tokens[:, None]), attention_mask=mask, cache=prompt.cache)
        logits = model.lm.head(hidden[:, -1])


@torch.no_grad()
def pieces(
    model: PocketModel, prompt: Prefilled, stop: str | None, max_new_tokens: int, sampling: Sampling
) -> Iterator[str]:
    """Yield an answer's text as it comes, whole characters at a time."""
    ids: list[int] = []
    sent = ""
    for (token,), _ in decode(model, prompt, stop, max_new_tokens, sampling):
        if token is not None:
            ids.append(token)
        text = model.decode(ids)
        if not text.endswith("\ufffd"):  # a character's last byte is still to come
            yield text[len(sent) :]
            sent = text
    yield model.decode(ids)[len(sent) :]


def _choose(logits: Tensor, sampling: Sampling, generator: torch.Generator | None) -> Tensor:
    """Pick one token per row of logits ``(batch, vocabulary)``; ``_LOST`` where they hold NaN or infinity."""
    lost = ~logits.amax(-1).isfinite()  # with NaN anywhere in a row, the largest is NaN
    if not sampling.do_sample:
        return logits.argmax(-1).masked_fill(lost, _LOST)
    probabilities = F.softmax(logits.masked_fill(lost[:, None], 0.0) / sampling.temperature, -1)
    ordered, places = probabilities.sort(-1, descending=True)
    beyond = ordered.cumsum(-1) - ordered > sampling.top_p  # the token that crosses top_p stays
    ordered = ordered.masked_fill(beyond, 0.0)
    drawn = places.gather(-1, torch.multinomial(ordered, 1, generator=generator))[:, 0]
    return drawn.masked_fill(lost, _LOST)
