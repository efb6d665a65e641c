"""Near ties: in half precision another order of the same sums may give an answer that is as likely."""

from __future__ import annotations

from typing import Any

from torch import Tensor, stack, tensor

from aim_sdk.backend.capabilities import HasVocabulary, find
from aim_sdk.backend.interfaces import Backend
from aim_sdk.testing.compare import tolerance
from aim_sdk.testing.precision import is_half
from aim_sdk.testing.steering import head_changed, wanted
from aim_sdk.types import Context, Generation, Query


def is_tie(
    backend: Backend, query: Query, context: Context, found: Generation, alone: Generation, **generation: Any
) -> bool:
    """Whether rounding explains that a query gets another answer than on its own.

    Where the two part, the model must give both tokens the same log-probability, up to what the check allows; with
    beams it must give it to both whole answers. In float32 nothing is a tie.
    """
    ids, own = found.token_ids, alone.token_ids
    place = shared(found, alone)
    compared = slice(None) if generation.pop("num_beams", 1) > 1 else slice(place, place + 1)
    if (
        not is_half(backend.dtype)
        or find(backend, HasVocabulary) is None
        or found.prompt_tokens != alone.prompt_tokens
        or place == min(len(ids), len(own))
    ):
        return False
    rows = [_log_probs(backend, query, context, row[: compared.stop], **generation) for row in (ids, own)]
    if not all(map(len, rows)):
        return False
    sums = stack([row[compared].sum() for row in rows])
    return bool((sums[0] - sums[1]).abs() <= tolerance(backend, sums))


def shared(one: Generation, other: Generation) -> int:
    """How many first tokens two answers share."""
    pairs = list(zip(one.token_ids, other.token_ids, strict=False))
    return next((n for n, pair in enumerate(pairs) if pair[0] != pair[1]), len(pairs))


def _log_probs(backend: Backend, query: Query, context: Context, ids: tuple[int, ...], **generation: Any) -> Tensor:
    """What the LM head says of an answer's tokens, when it is made to say them; empty if it cannot be made to."""
    steps: list[Tensor] = []
    wish = wanted(ids)

    def keep(logits: Tensor) -> None:
        steps.append(logits.detach().reshape(-1, logits.shape[-1])[-1].float().log_softmax(-1))
        wish(logits)

    with head_changed(backend, keep):
        (made,) = backend.injector.generate([query], [context], **{**generation, "max_new_tokens": len(ids)})
    if made.token_ids != ids or len(steps) != len(ids):
        return tensor([])
    return stack([step[token] for step, token in zip(steps, ids, strict=True)])
