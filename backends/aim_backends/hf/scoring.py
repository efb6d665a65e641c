"""Log-probabilities of given answers behind one prompt, which is computed once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from aim_backends.hf.prefix import prefill
from aim_backends.hf.slots import append_tokens
from aim_backends.hf.tap import recording

if TYPE_CHECKING:
    from aim_backends.hf.backend import TransformersBackend


@torch.no_grad()
def score(
    backend: TransformersBackend, inputs: Mapping[str, Any], choices: Sequence[Sequence[int]]
) -> list[list[float]]:
    """Return each choice's token log-probabilities behind a prompt of one row, of which a part may be in a cache."""
    ids = pad_sequence(
        [torch.tensor(choice) for choice in choices], batch_first=True, padding_value=backend.pad_token_id
    ).to(inputs["input_ids"].device)
    chosen = _chosen(_continued(backend, inputs, ids), ids) if backend.continues_cache else whole(backend, inputs, ids)
    return [row[: len(choice)] for row, choice in zip(chosen.tolist(), choices, strict=True)]


def _continued(
    backend: TransformersBackend, inputs: Mapping[str, Any], ids: Tensor
) -> Float[Tensor, "choices tokens vocabulary"]:
    prompt = prefill(backend, inputs) if "past_key_values" in inputs else _forwarded(backend, inputs)
    first: Tensor = prompt.logits[:, -1:].expand(len(ids), -1, -1)
    if ids.shape[1] == 1:
        return first
    cache = prompt.past_key_values
    cache.reorder_cache(torch.zeros(len(ids), dtype=torch.long, device=ids.device))
    # One unpadded prompt and padding on the right: causality alone keeps the choices right, no mask is needed.
    more = backend.continuation_inputs(inputs, prompt, *ids[:, :-1].shape)
    rest = backend.model(input_ids=ids[:, :-1], past_key_values=cache, use_cache=True, **more)
    return torch.cat([first, rest.logits], dim=1)


def _forwarded(backend: TransformersBackend, inputs: Mapping[str, Tensor]) -> Any:
    with recording():  # the prompt's logits at its last position alone
        return backend.model(**inputs, use_cache=True)


def whole(
    backend: TransformersBackend, inputs: Mapping[str, Tensor], ids: Int[Tensor, "choices tokens"]
) -> Float[Tensor, "choices tokens"]:
    """Return log-probabilities behind a prompt of one row, one forward without a cache for each choice."""
    width = inputs["input_ids"].shape[1]
    rows = [append_tokens(inputs, row[None], token_type=backend.answer_type) for row in ids]
    return _chosen(torch.cat([backend.model(**row, use_cache=False).logits[:, width - 1 : -1] for row in rows]), ids)


def _chosen(
    logits: Float[Tensor, "choices tokens vocabulary"], ids: Int[Tensor, "choices tokens"]
) -> Float[Tensor, "choices tokens"]:
    return logits.float().log_softmax(-1).gather(2, ids[..., None])[..., 0]
