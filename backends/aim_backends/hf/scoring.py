"""Log-probabilities of given answers after one prompt, which is computed once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from aim_backends.hf.prefix import prefill
from aim_backends.hf.slots import answered
from aim_backends.hf.tap import Positions, predicting, recording
from aim_sdk.backend.prepared import AnswerLogits
from aim_sdk.support.finite import not_finite

if TYPE_CHECKING:
    from aim_backends.hf.backbone import Backbone


@torch.no_grad()
def score(backbone: Backbone, inputs: Mapping[str, Any], choices: Sequence[Sequence[int]]) -> list[list[float]]:
    """Return each choice's token log-probabilities after a prompt of one row, part of which may be in a cache.

    Raises:
        NonFiniteError: one is NaN or infinite.
    """
    scores = _scores(backbone, inputs, choices)
    if not all(math.isfinite(value) for row in scores for value in row):
        raise not_finite("log-probabilities", backbone.model.dtype)
    return scores


def _scores(backbone: Backbone, inputs: Mapping[str, Any], choices: Sequence[Sequence[int]]) -> list[list[float]]:
    if not backbone.family.continues_cache:
        return [whole(backbone, inputs, [choice])[0].log_probs.tolist() for choice in choices]
    ids = pad_sequence(
        [torch.tensor(choice) for choice in choices], batch_first=True, padding_value=backbone.pad_token_id
    ).to(inputs["input_ids"].device)
    chosen = _chosen(_continued(backbone, inputs, ids), ids)
    return [row[: len(choice)] for row, choice in zip(chosen.tolist(), choices, strict=True)]


def _continued(
    backbone: Backbone, inputs: Mapping[str, Any], ids: Tensor
) -> Float[Tensor, "choices tokens vocabulary"]:
    prompt = prefill(backbone, inputs) if "past_key_values" in inputs else _forwarded(backbone, inputs)
    first: Tensor = prompt.logits[:, -1:].expand(len(ids), -1, -1)
    if ids.shape[1] == 1:
        return first
    cache = prompt.past_key_values
    cache.reorder_cache(torch.zeros(len(ids), dtype=torch.long, device=ids.device))
    # One unpadded prompt and padding on the right: causality alone keeps the choices right, no mask is needed.
    more = backbone.continuation_inputs(inputs, prompt, *ids[:, :-1].shape)
    rest = backbone.forward(input_ids=ids[:, :-1], past_key_values=cache, use_cache=True, **more)
    return torch.cat([first, rest.logits], dim=1)


def _forwarded(backbone: Backbone, inputs: Mapping[str, Tensor]) -> Any:
    with recording():  # the prompt's logits at its last position alone
        return backbone.forward(**inputs, use_cache=True)


def whole(backbone: Backbone, inputs: Mapping[str, Tensor], answers: Sequence[Sequence[int]]) -> list[AnswerLogits]:
    """Return the logits at each answer's positions after its own prompt, in one forward without a cache."""
    after = answered(inputs, answers, pad=backbone.pad_token_id, answer_type=backbone.answer_type)
    lengths, counts = inputs["attention_mask"].sum(1).tolist(), [len(answer) for answer in answers]
    places = [(row, lengths[row] - 1 + n) for row, count in enumerate(counts) for n in range(count)]
    rows, columns = torch.tensor(places).T.to(backbone.device)
    with predicting(Positions(rows, columns)):
        (logits,) = backbone.forward(**after, use_cache=False).logits  # (places, vocabulary)
    ids = torch.tensor([index for answer in answers for index in answer], device=logits.device)
    return [AnswerLogits(*parts) for parts in zip(torch.split(ids, counts), torch.split(logits, counts), strict=True)]


def _chosen(
    logits: Float[Tensor, "choices tokens vocabulary"], ids: Int[Tensor, "choices tokens"]
) -> Float[Tensor, "choices tokens"]:
    return logits.float().log_softmax(-1).gather(2, ids[..., None])[..., 0]
