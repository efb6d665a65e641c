"""What a projector is trained on: logits at the answers of a batch, prepared ahead, and recomputed activations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import torch
from torch import Tensor

from aim_sdk.backend.capabilities import Interleaves, RecomputesActivations, Trainable, capability, find
from aim_sdk.backend.interfaces import Backend
from aim_sdk.backend.prepared import AnswerLogits
from aim_sdk.testing.compare import answer_logits, log_probs, require, require_close
from aim_sdk.testing.kit import check, needs
from aim_sdk.testing.precision import close
from aim_sdk.testing.samples import CHOICES, DEMONSTRATIONS, QUERIES
from aim_sdk.types import Context, Demonstration

_UNEQUAL = ((0, 1, 2), (), (1,))
"""Contexts of one batch, by the demonstrations' places."""
_ALIKE = ("It is a lynx.", "It is a fox, or a lynx.", "It", "No")
"""Answers that begin alike."""
_LEAST = -30.0
"""Log-probabilities below it are all the same: some models forbid tokens."""


@check
@needs(Trainable)
@close("log-probabilities", bfloat16=0.03, float16=0.01)
def check_answer_logits(backend: Backend) -> None:
    """The logits at an answer's positions are the scores of every answer that begins with the same tokens.

    Catches logits of the next position or of another prompt, probabilities of the answer's own tokens alone, and
    demonstrations whose images are left out: a projector would learn what the backbone does not say.
    """
    form, query, count = backend.default_format, QUERIES[1], len(_ALIKE)
    for context in (*_contexts(backend, (0, 1)), []):
        scores = backend.injector.score(query, context, _ALIKE, prompt_format=form)
        with torch.no_grad():
            found = answer_logits(backend, [query] * count, [context] * count, _ALIKE, prompt_format=form)
        what = f"after {_shown(context)}"
        for one in found:
            _require_types(one)
        for one, (answer, other, expected) in product(found, zip(_ALIKE, found, scores, strict=True)):
            _require_predicted(backend, one, other.token_ids, expected, f"{what}, {answer!r}")
        (made,) = backend.injector.generate([query], [context], prompt_format=form, max_new_tokens=1, log_probs=True)
        token, said = torch.tensor(made.token_ids[:1]), list(made.log_probs or ())
        _require_predicted(backend, found[0], token, said, f"{what}, the greedy token {made.token_ids}")


def _require_types(one: AnswerLogits) -> None:
    ids, logits = one.token_ids, one.logits
    whole = isinstance(ids, Tensor) and ids.ndim == 1 and not ids.is_floating_point()
    require(whole, f"AnswerLogits.token_ids: expected a one-dimensional tensor of integers; got {ids!r}")
    rows = isinstance(logits, Tensor) and logits.is_floating_point() and logits.ndim == 2 and len(logits) == len(ids)
    require(rows, f"AnswerLogits.logits: expected a tensor (tokens, vocabulary) of {len(ids)} rows; got {logits!r}")
    require(
        ids.device == logits.device, f"AnswerLogits: tokens on {ids.device}; expected {logits.device} as the logits"
    )


def _require_predicted(
    backend: Backend, one: AnswerLogits, token_ids: Tensor, scores: Sequence[float], what: str
) -> None:
    """Where two answers have the same tokens so far, the first one's logits give the scores of the other."""
    ids = token_ids.tolist()
    require(len(ids) == len(scores), f"{what}: {len(scores)} scores; expected {len(ids)}, as it has tokens {ids}")
    shared = next(
        (n for n, pair in enumerate(zip(one.token_ids.tolist(), ids, strict=False)) if pair[0] != pair[1]), 99
    )
    places = min(shared + 1, len(ids), len(one))
    found = _log_probs(one)[range(places), ids[:places]]
    require_close(found, torch.tensor(scores[:places]), backend, f"{what}: log-probabilities by `answer_logits`")


def _log_probs(one: AnswerLogits) -> Tensor:
    """Of all tokens at each position, on the CPU."""
    return one.logits.float().log_softmax(-1).clamp(min=_LEAST).cpu()


def _contexts(backend: Backend, places: Sequence[int]) -> Iterator[Context]:
    """The same demonstrations without their images, and with them if the backend can."""
    shown = [DEMONSTRATIONS[place] for place in places]
    yield backend.reader.text_only(shown, prompt_format=backend.default_format)
    if find(backend, Interleaves) is not None:
        yield shown


def _shown(context: Context) -> str:
    kind = "with" if any(isinstance(item, Demonstration) for item in context) else "without"
    return f"{len(context)} demonstrations {kind} their images"


@check
@needs(Trainable)
@close("log-probabilities", bfloat16=0.025, float16=0.006)
def check_answer_logits_batch(backend: Backend) -> None:
    """A batch of unlike prompts and answers has the logits of its rows alone, also if prepared ahead.

    Catches padding that is attended to, positions that start at the padding, answers at another row's places, and
    demonstrations with images that go to another query.
    """
    form, trainable = backend.default_format, capability(backend, Trainable)
    answers = CHOICES[::-1]
    for contexts in zip(*(list(_contexts(backend, row)) for row in _UNEQUAL), strict=True):
        for ended in (False, True):
            options: dict[str, Any] = {"prompt_format": form, "ended": ended}
            ahead = trainable.prepare_answers(QUERIES, answers, **options)
            known = trainable.prepare_answers(QUERIES, answers, contexts=contexts, **options)
            with torch.no_grad():
                alone = [
                    answer_logits(backend, [query], [context], [answer], **options)[0]
                    for query, context, answer in zip(QUERIES, contexts, answers, strict=True)
                ]
                together = answer_logits(backend, QUERIES, contexts, answers, **options)
                late = trainable.answer_logits(ahead, contexts)
                told_before = trainable.answer_logits(known, contexts)
            how = f"{_shown(contexts[0])} before the first query (ended={ended})"
            bare = [tuple(one.token_ids.tolist()) for one in trainable.answer_logits(ahead, [[]] * len(QUERIES))]
            told = list(ahead.token_ids)
            require(told == bare, f"`prepare_answers` tells the tokens {told}; after no demonstrations they are {bare}")
            _require_same(backend, together, alone, f"a batch's log-probabilities with {how}")
            _require_same(backend, late, alone, f"log-probabilities prepared ahead with {how}")
            _require_same(backend, told_before, alone, f"log-probabilities prepared for their contexts with {how}")


def _require_same(backend: Backend, found: list[AnswerLogits], expected: list[AnswerLogits], what: str) -> None:
    ids, own = ([one.token_ids.tolist() for one in batch] for batch in (found, expected))
    require(ids == own, f"{what}: the answers' tokens are {ids}; expected {own}")
    for one, other in zip(found, expected, strict=True):
        require_close(_log_probs(one), _log_probs(other), backend, what)


@check
@needs(Trainable, RecomputesActivations)
@close("gradients", bfloat16=0.004, float16=0.0005)
def check_recomputed_activations(backend: Backend) -> None:
    """Computed again in the backward, activations take less memory and give the same gradients.

    Catches checkpointing that is silently off in eval mode, and recomputation without what was injected.
    """
    form = backend.default_format
    shown = backend.reader.text_only(DEMONSTRATIONS, prompt_format=form)

    def step() -> tuple[Tensor, int]:
        """Return the gradient of the first fused tokens, and how many bytes the forward keeps for it."""
        first = shown[0].embeddings.detach().clone().requires_grad_()
        kept = 0

        def count(tensor: Tensor) -> Tensor:
            nonlocal kept
            kept += tensor.numel() * tensor.element_size()
            return tensor

        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            context = [replace(shown[0], embeddings=first), *shown[1:]]
            (logs,) = log_probs(backend, QUERIES[:1], [context], CHOICES[2:], prompt_format=form)
        logs.sum().backward()  # type: ignore[no-untyped-call]
        assert first.grad is not None
        return first.grad, kept

    expected, all_kept = step()
    recomputing = capability(backend, RecomputesActivations)
    try:
        recomputing.recompute_activations()
        found, kept = step()
    finally:
        recomputing.recompute_activations(False)
    require_close(found, expected, backend, "gradients with activations computed again")
    require(kept < all_kept, f"{kept} bytes are kept for the backward; without recomputation {all_kept}")
    _, after = step()
    require(after == all_kept, f"turned off again, {after} bytes are kept; before it was turned on {all_kept}")
