"""Scores choices after prompts that were run: those of several prompts in one forward."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from aim_backends.pocket.model import PocketModel
from aim_backends.pocket.prefilled import Prefilled
from aim_sdk.support.finite import not_finite
from aim_sdk.types import ChoiceScores

_POSITIONS: Final = 4096
"""Positions of one forward, the prompts' included: each choice copies its prompt's keys and values."""


def choice_scores(model: PocketModel, prompt: Prefilled, ids: Sequence[Sequence[list[int]]]) -> list[ChoiceScores]:
    """Return the scores of each prompt's own choices, which are tokens.

    Raises:
        NonFiniteError: one is NaN or infinite; its ``query`` is the prompt's row.
    """
    lengths, found = prompt.mask.sum(1).tolist(), list[ChoiceScores]()
    for rows in _groups(ids, prompt.mask.shape[1]):
        tokens = [(row, choice) for row in rows for choice in ids[row]]
        log_probs = iter(_log_probs(model, prompt, tokens))
        for row in rows:
            scores = tuple(tuple(next(log_probs)[: len(choice)].tolist()) for choice in ids[row])
            if not all(math.isfinite(value) for one in scores for value in one):
                error = not_finite("log-probabilities", prompt.last.dtype)
                error.query = row
                raise error
            found.append(ChoiceScores(scores, lengths[row]))
    return found


def _groups(ids: Sequence[Sequence[list[int]]], prompt: int) -> Iterator[list[int]]:
    """Rows whose choices go through one forward; a single row's may exceed the bound."""
    group, choices, longest = list[int](), 0, 0
    for row, own in enumerate(ids):
        longer = max(longest, *map(len, own)) if own else longest
        if group and (choices + len(own)) * (prompt + longer) > _POSITIONS:
            yield group
            group, choices, longer = [], 0, max(map(len, own), default=0)
        group.append(row)
        choices, longest = choices + len(own), longer
    yield group


def _log_probs(
    model: PocketModel, prompt: Prefilled, tokens: Sequence[tuple[int, list[int]]]
) -> Float[Tensor, "choices tokens"]:
    """Of each choice ``(its prompt's row, its tokens)``, padded on the right."""
    device = prompt.mask.device
    rows = torch.tensor([row for row, _ in tokens], dtype=torch.long, device=device)
    padded = pad_sequence([torch.tensor(ids) for _, ids in tokens], batch_first=True).to(device)
    hidden = prompt.last[rows]  # (choices, 1, hidden)
    if (longest := padded.shape[1]) > 1:
        mask = torch.cat([prompt.mask[rows], prompt.mask.new_ones(len(rows), longest - 1)], 1)
        inputs, cache = model.lm.embed(padded[:, :-1]), prompt.cache.select(rows)
        hidden = torch.cat([hidden, model.lm(inputs, attention_mask=mask, cache=cache)], 1)
    logits: Tensor = model.lm.head(hidden)
    return F.log_softmax(logits.float(), -1).gather(2, padded[..., None])[..., 0]
