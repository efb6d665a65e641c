"""What the backbone predicts at an answer's positions: the same numbers as its scores, after contexts of any kind."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from aim_backends.llava import LlavaBackend
from aim_backends.pocket.backend import PocketBackend
from aim_sdk import Backend, Demonstration, FusedTokens, Query
from aim_sdk.backend import AnswerLogits, Context, Trainable, capability
from aim_sdk.errors import ContextLengthError
from aim_sdk.testing.compare import answer_logits
from aim_sdk.testing.samples import CHOICES, DEMONSTRATIONS, QUERIES


@pytest.fixture(scope="module", params=["pocket", "llava"])
def backend(request: pytest.FixtureRequest, tiny: Callable[[str], Path]) -> Backend:
    if request.param == "pocket":
        return PocketBackend.from_pretrained(device="cpu")
    return LlavaBackend.from_pretrained(str(tiny("llava-1.5")), device="cpu")


def contexts(backend: Backend, kind: str) -> list[Context]:
    """Three contexts of unlike lengths."""
    shown: list[list[Demonstration]] = [list(DEMONSTRATIONS), [], [DEMONSTRATIONS[1]]]
    if kind == "interleaved":
        return [*shown]
    return [backend.reader.text_only(row, prompt_format=backend.default_format) for row in shown]


def predicted(backend: Backend, rows: Sequence[Context], ended: bool = False) -> list[AnswerLogits]:
    return answer_logits(backend, QUERIES, rows, CHOICES, prompt_format=backend.default_format, ended=ended)


@pytest.mark.parametrize("kind", ["fused", "interleaved"])
def test_its_log_probabilities_are_the_scores(backend: Backend, kind: str) -> None:
    rows = contexts(backend, kind)
    with torch.no_grad():
        found = predicted(backend, rows)
    for one, query, context, answer in zip(found, QUERIES, rows, CHOICES, strict=True):
        (scores,) = backend.injector.score(query, context, [answer], prompt_format=backend.default_format)
        assert len(one) == len(scores) == len(one.token_ids) == len(one.logits)
        assert one.log_probs.tolist() == pytest.approx(scores, abs=2e-4)


@pytest.mark.parametrize("kind", ["fused", "interleaved"])
def test_the_likeliest_first_token_is_the_greedy_one(backend: Backend, kind: str) -> None:
    rows, form = contexts(backend, kind), backend.default_format
    with torch.no_grad():
        found = predicted(backend, rows)
    answers = backend.injector.generate(QUERIES, rows, prompt_format=form, max_new_tokens=1)
    assert [int(one.logits[0].argmax()) for one in found] == [answer.token_ids[0] for answer in answers]


def test_images_of_demonstrations_change_it(backend: Backend) -> None:
    blank = [Demonstration(QUERIES[0].image, item.text, item.answer) for item in DEMONSTRATIONS]
    with torch.no_grad():
        (one,) = answer_logits(
            backend, QUERIES[1:2], [DEMONSTRATIONS], CHOICES[:1], prompt_format=backend.default_format
        )
        (other,) = answer_logits(backend, QUERIES[1:2], [blank], CHOICES[:1], prompt_format=backend.default_format)
    assert float((one.logits[0] - other.logits[0]).abs().max()) > 1e-4


def test_a_batch_is_views_of_one_tensor_and_gives_the_numbers_of_the_whole(backend: Backend) -> None:
    with torch.no_grad():
        found = predicted(backend, contexts(backend, "fused"), ended=True)
    assert len({one.logits.untyped_storage().data_ptr() for one in found}) == 1
    assert all(one.logits.dtype == backend.dtype for one in found)
    logits, ids = torch.cat([one.logits for one in found]), torch.cat([one.token_ids for one in found])
    whole = -F.cross_entropy(logits.float(), ids, reduction="none")
    assert torch.equal(torch.cat([one.log_probs for one in found]), whole)


def test_gradients_of_the_whole_distribution_reach_the_fused_tokens_alone(backend: Backend) -> None:
    first, *rest = contexts(backend, "fused")
    shown = [item for item in first if isinstance(item, FusedTokens)]
    leaf = shown[0].embeddings.detach().clone().requires_grad_()
    with torch.enable_grad():
        found = predicted(backend, [[replace(shown[0], embeddings=leaf), *shown[1:]], *rest])
    assert [one.logits.requires_grad for one in found] == [True] * 3  # of one tensor
    (own,) = torch.autograd.grad(found[0].logits.float().log_softmax(-1).square().sum(), leaf, retain_graph=True)
    assert bool(own.abs().sum() > 0)
    (others,) = torch.autograd.grad(found[1].logits.sum() + found[2].logits.sum(), leaf)
    assert not others.any()


def test_interleaved_contexts_that_are_too_long_are_refused(backend: Backend) -> None:
    many = list(DEMONSTRATIONS) * 200
    trainable, form = capability(backend, Trainable), backend.default_format
    prepared = trainable.prepare_answers([Query(QUERIES[0].image, "What?")], ["a dog"], prompt_format=form)
    with torch.no_grad(), pytest.raises(ContextLengthError):
        trainable.answer_logits(prepared, [many])
