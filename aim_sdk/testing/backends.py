"""What a backend says of itself: types, fingerprint, slot."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import torch
from torch import Tensor

from aim_sdk.config import Fingerprint
from aim_sdk.interfaces import Backend
from aim_sdk.testing.compare import require, require_same_scores
from aim_sdk.testing.kit import NotApplicable, check, heart
from aim_sdk.testing.samples import CHOICES, DEMONSTRATIONS, QUERIES
from aim_sdk.types import FusedTokens, Generation, Reading

_RARE = "§ ¤ ¶"
"""Its tokens are in no prompt of the checks."""


@heart
def check_return_types(backend: Backend) -> None:
    """Readings, fused tokens, answers and scores have the types of the interface.

    Catches lists for tensors and tensors for numbers, which fail later, in a bank, a file or a training.
    """
    form = backend.default_format
    (reading,) = backend.reader.read(DEMONSTRATIONS[:1], prompt_format=form)
    (tokens,) = backend.reader.text_only(DEMONSTRATIONS[:1], prompt_format=form)
    (made,) = backend.injector.generate(QUERIES[:1], [[]], prompt_format=form, max_new_tokens=2, log_probs=True)
    scores = backend.injector.score(QUERIES[0], [], CHOICES, prompt_format=form)
    ids = reading.token_ids
    asked = {
        "read: Reading": isinstance(reading, Reading),
        "Reading.token_ids: a one-dimensional tensor of integers": isinstance(ids, Tensor)
        and ids.ndim == 1
        and not ids.is_floating_point(),
        "Reading.hidden: a tensor (tokens, hidden)": isinstance(reading.hidden, Tensor) and reading.hidden.ndim == 2,
        "Reading.image_position, answer_start: int": type(reading.image_position) is type(reading.answer_start) is int,
        "text_only: FusedTokens": isinstance(tokens, FusedTokens),
        "generate: Generation": isinstance(made, Generation),
        "Generation.text: str": type(made.text) is str,
        "Generation.token_ids: a tuple of int": _all(made.token_ids, int),
        "Generation.prompt_tokens: int": type(made.prompt_tokens) is int,
        "Generation.log_probs: a tuple of float": _all(made.log_probs, float),
        "score: a list of lists of float": type(scores) is list
        and all(type(row) is list and _all(tuple(row), float) for row in scores),
        "Backend.fingerprint: Fingerprint": isinstance(backend.fingerprint, Fingerprint),
    }
    bad = [what for what, holds in asked.items() if not holds]
    require(not bad, f"expected {'; '.join(bad)}. Got {reading}, {made}, {scores}"[:2000])


@check
def check_fingerprint(backend: Backend) -> None:
    """The fingerprint's sizes are the matrices', and a weight that changes changes it, whichever it is.

    Catches constant hashes and hashes of a part: a bank or a projector of another checkpoint would be taken.
    """
    usual = backend.fingerprint
    sizes = backend.output_embeddings.shape[1], backend.input_embeddings.shape[1]
    found = usual.hidden_size, usual.embedding_size
    require(found == sizes, f"the fingerprint's sizes are {found}; the LM head and the embeddings have {sizes}")
    require(usual.backend == backend.name, f"the fingerprint is of backend {usual.backend!r}, not {backend.name!r}")
    if usual.weights_hash is None:
        raise NotApplicable("the fingerprint has no hash of the weights")
    named = [(name, p) for module in backend.modules for name, p in module.named_parameters() if p.numel() > 1]
    if not named:
        raise NotApplicable("the backend names no torch modules (`modules`)")
    for name, parameter in {named[place] for place in (0, len(named) // 2, len(named) - 1)}:
        before = parameter.detach().clone()
        try:
            with torch.no_grad():
                parameter.add_(1)
            other = _afresh(backend)
        finally:
            with torch.no_grad():
                parameter.copy_(before)
        require(other.weights_hash != usual.weights_hash, f"{name} is another, and the weights' hash is the same")
    require(_afresh(backend).weights_hash == usual.weights_hash, "the weights are as they were, their hash is another")


@check
def check_slot_changes_nothing(backend: Backend) -> None:
    """No text has the slot's token, and with another token as the slot the scores are the same.

    Catches slots that a user's text can reach, and families that look ids up a second time and see the slot there.
    """
    if backend.slot is None:
        raise NotApplicable("the backend marks no places with a token")
    if isinstance(inspect.getattr_static(type(backend), "slot", None), property):
        raise NotApplicable("the slot cannot be changed")
    form, usual = backend.default_format, backend.slot
    items = [*DEMONSTRATIONS, *(type(DEMONSTRATIONS[0])(DEMONSTRATIONS[0].image, t, t) for t in (_RARE, "The end."))]
    readings = backend.reader.read(items, prompt_format=form, with_images=False)
    used = [set(reading.token_ids.tolist()) for reading in readings]
    require(usual not in set().union(*used), f"the slot {usual} is a token of a user's text")
    free = sorted(used[-2] - set().union(*used[:-2]))
    context = backend.reader.text_only(DEMONSTRATIONS, prompt_format=form)
    expected = backend.injector.score(QUERIES[0], context, CHOICES, prompt_format=form)
    for slot in free[:2]:
        try:
            backend.slot = slot
            found = backend.injector.score(QUERIES[0], context, CHOICES, prompt_format=form)
        finally:
            backend.slot = usual
        require_same_scores(found, expected, backend, f"scores with the slots {slot} and {usual}")


def _all(values: Any, kind: type) -> bool:
    return type(values) is tuple and all(type(value) is kind for value in values)


def _afresh(backend: Backend) -> Fingerprint:
    """The fingerprint as it is computed now: what a backend has kept of it is not looked at."""
    other = copy.copy(backend)
    for name, value in list(vars(other).items()):
        if isinstance(value, Fingerprint):
            del other.__dict__[name]
    return other.fingerprint
