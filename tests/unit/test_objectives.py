"""What a step minimises, and what it moves: identities, not thresholds."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from aim_sdk.backend.prepared import AnswerLogits
from aim_sdk.errors import InputError
from aim_sdk.training import OBJECTIVES, TEACHERS
from aim_sdk.training.objectives import WeightedSum
from aim_sdk.training.targets import Target

WORDS = 11


def predicted(seed: int, tokens: int = 3, scale: float = 3.0) -> AnswerLogits:
    made = torch.Generator().manual_seed(seed)
    ids = torch.randint(WORDS, (tokens,), generator=made)
    return AnswerLogits(ids, (torch.randn(tokens, WORDS, generator=made) * scale).requires_grad_())


def divergence(teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
    """By its definition, in float64."""
    p, q = teacher.double().softmax(-1), student.double().softmax(-1)
    return (p * (p.log() - q.log())).sum(-1)


def test_the_divergence_is_that_of_the_definition() -> None:
    teacher, student = predicted(0), predicted(1)
    target = Target.of(teacher.token_ids, teacher.logits.detach(), 0)
    assert target.ids is None
    torch.testing.assert_close(
        target.divergence(student.logits).double(), divergence(teacher.logits, student.logits), atol=1e-5, rtol=1e-5
    )


@given(top=st.integers(1, WORDS - 1), seed=st.integers(0, 50))
def test_likeliest_tokens_and_the_rest_as_one_are_a_distribution(top: int, seed: int) -> None:
    """What is kept sums to one, is at most the whole divergence, and is zero for equal distributions."""
    teacher, student = predicted(seed), predicted(seed + 100)
    target = Target.of(teacher.token_ids, teacher.logits.detach(), top)
    assert target.ids is not None
    assert target.rest is not None
    torch.testing.assert_close(target.top.exp().sum(-1) + target.rest.exp(), torch.ones(3))
    whole = divergence(teacher.logits, student.logits)
    assert bool((target.divergence(student.logits).double() <= whole + 1e-5).all())
    torch.testing.assert_close(target.divergence(teacher.logits), torch.zeros(3), atol=1e-5, rtol=0)


@given(top=st.integers(1, WORDS - 1), seed=st.integers(0, 20))
def test_merged_by_hand_it_is_the_same(top: int, seed: int) -> None:
    """The divergence over the kept tokens and one token that has the others' probability."""
    teacher, student = predicted(seed), predicted(seed + 100)
    target = Target.of(teacher.token_ids, teacher.logits.detach(), top)
    assert target.ids is not None

    def merged(logits: torch.Tensor) -> torch.Tensor:
        assert target.ids is not None
        probabilities = logits.double().softmax(-1)
        kept = probabilities.gather(-1, target.ids)
        return torch.cat([kept, 1 - kept.sum(-1, keepdim=True)], -1)

    p, q = merged(teacher.logits), merged(student.logits)
    expected = (p * (p.log() - q.log())).sum(-1)
    torch.testing.assert_close(target.divergence(student.logits).double(), expected, atol=1e-4, rtol=1e-4)


def test_as_many_tokens_as_the_vocabulary_has_are_the_whole_distribution() -> None:
    teacher = predicted(0)
    assert Target.of(teacher.token_ids, teacher.logits.detach(), WORDS).ids is None


def test_a_sure_teacher_gives_no_infinity() -> None:
    """All probability on one token: the rest's underflows, and neither value nor gradient is NaN."""
    logits = torch.full((1, WORDS), -500.0)
    logits[0, 3] = 500.0
    target = Target.of(torch.tensor([3]), logits, 4)
    student = predicted(2, tokens=1)
    loss = target.divergence(student.logits).sum()
    (gradient,) = torch.autograd.grad(loss, student.logits)
    assert bool(loss.isfinite())
    assert bool(gradient.isfinite().all())
    torch.testing.assert_close(loss, -student.logits.log_softmax(-1)[0, 3])


def test_distilling_from_a_one_hot_teacher_is_language_modelling() -> None:
    student = predicted(5)
    logits = F.one_hot(student.token_ids, WORDS).float() * 1e4
    target = Target.of(student.token_ids, logits, 0)
    distilled, modelled = WeightedSum({"distill": 1}), WeightedSum({"lm": 1})
    torch.testing.assert_close(distilled.loss(student, target), modelled.loss(student, None))


def test_a_weighted_sum_is_one_of_values_and_gradients() -> None:
    student, teacher = predicted(1), predicted(2)
    target = Target.of(teacher.token_ids, teacher.logits.detach(), 5)
    parts = [WeightedSum({"distill": 1}).loss(student, target), WeightedSum({"lm": 1}).loss(student, target)]
    gradients = [torch.autograd.grad(part, student.logits)[0] for part in parts]
    both = WeightedSum({"distill": 0.25, "lm": 2.0}).loss(student, target)
    torch.testing.assert_close(both, 0.25 * parts[0] + 2 * parts[1])
    (gradient,) = torch.autograd.grad(both, student.logits)
    torch.testing.assert_close(gradient, 0.25 * gradients[0] + 2 * gradients[1])


def test_an_episode_counts_once_however_long_its_answer_is() -> None:
    student = predicted(3, tokens=4)
    expected = -student.logits.log_softmax(-1).gather(-1, student.token_ids[:, None]).mean()
    torch.testing.assert_close(WeightedSum({"lm": 1}).loss(student, None), expected)


def test_names_of_objectives_and_teachers() -> None:
    assert set(OBJECTIVES) == {"distill", "lm"}
    assert set(TEACHERS) == {"captions", "interleaved"}
    assert WeightedSum({"distill": 1}).needs_teacher
    assert not WeightedSum({"lm": 1}).needs_teacher
    with pytest.raises(InputError, match="Did you mean 'distill'"):
        WeightedSum({"distil": 1})
