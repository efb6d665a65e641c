"""What a step changes: the projector, its average, its decay towards the start, changes of low rank."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from aim_sdk.projectors import KINDS
from aim_sdk.projectors.base import Projector
from aim_sdk.projectors.kinds import untrained
from aim_sdk.training import TrainingConfig
from aim_sdk.training.average import copied, weights
from aim_sdk.training.learner import Learner
from aim_sdk.types import Vocabulary
from tests.banks import fingerprint


@pytest.fixture
def vocabulary() -> Vocabulary:
    torch.manual_seed(0)
    return Vocabulary(
        torch.randn(30, 8), torch.randn(30, 8), fingerprint().model_copy(update={"hidden_size": 8, "embedding_size": 8})
    )


def learner(vocabulary: Vocabulary, kind: str = "linear", **settings: Any) -> Learner:
    torch.manual_seed(1)
    optimizer = {"learning_rate": 0.1, "final_rate": 1.0, "warm_up": 0.0, **settings.pop("optimizer", {})}
    config = TrainingConfig.model_validate(
        {"output": "run", "backend": "llava", "corpus": {"path": "docs"}, "optimizer": optimizer, **settings}
    )
    projector = untrained(kind, vocabulary).to(torch.float32).requires_grad_().train()
    return Learner(projector, copied(projector, vocabulary), vocabulary, config)


def gradients(made: Learner, seed: int) -> None:
    torch.manual_seed(seed)
    for parameter in made.projector.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.randn_like(parameter)


def steps(made: Learner, number: int, first: int = 1) -> None:
    for step in range(first, first + number):
        made.set_rate(step)
        gradients(made, step)
        made.step(step)


def same(one: Projector, other: Projector) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_without_an_average_it_is_the_last_step(vocabulary: Vocabulary) -> None:
    made = learner(vocabulary, optimizer={"average": 0.0})
    steps(made, 3)
    assert same(made.average, made.projector)
    assert not same(made.average, made.start)


def test_the_average_is_that_of_the_formula(vocabulary: Vocabulary) -> None:
    made = learner(vocabulary, optimizer={"average": 0.5})
    expected = weights(made.start)["linear.weight"].clone()
    for step in range(1, 15):
        steps(made, 1, step)
        decay = min(0.5, (step - 1) / (step + 9))
        expected = decay * expected + (1 - decay) * weights(made.projector)["linear.weight"]
    torch.testing.assert_close(weights(made.average)["linear.weight"], expected)


def test_decay_leads_back_to_the_start_and_not_to_zero(vocabulary: Vocabulary) -> None:
    """With a rate of 0.1 and a decay of 2, a fifth of the way after each step, besides what the gradients do."""
    decaying = learner(vocabulary, optimizer={"weight_decay": 2.0})
    free = learner(vocabulary, optimizer={"weight_decay": 0.0})
    steps(decaying, 1)
    steps(free, 1)
    start, moved = weights(free.start)["linear.weight"], weights(free.projector)["linear.weight"]
    torch.testing.assert_close(weights(decaying.projector)["linear.weight"], moved + 0.2 * (start - moved))


@pytest.mark.parametrize("kind", KINDS)
def test_a_change_of_low_rank_starts_at_the_start_and_has_that_rank(vocabulary: Vocabulary, kind: str) -> None:
    made = learner(vocabulary, kind, projector={"kind": kind, "rank": 2}, optimizer={"average": 0.0})
    assert same(made.projector, made.start)
    assert weights(made.projector).keys() == made.start.state_dict().keys()
    steps(made, 4)
    assert same(made.average, made.projector)
    start = made.start.state_dict()
    changed = 0
    for name, value in weights(made.projector).items():
        if value.ndim == 2 and min(value.shape) > 2:
            rank = int(torch.linalg.matrix_rank(value - start[name], atol=1e-4))
            assert rank <= 2
            changed += rank
    assert changed > 0


@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("kind", ["carrier", "carrier-linear", "attention"])
def test_taken_up_again_it_takes_the_same_steps(vocabulary: Vocabulary, kind: str, rank: int | None) -> None:
    settings: dict[str, Any] = {"projector": {"kind": kind, "rank": rank}, "optimizer": {"average": 0.9}}
    whole, cut = learner(vocabulary, kind, **settings), learner(vocabulary, kind, **settings)
    steps(whole, 6)
    steps(cut, 3)
    cut.keep_best()
    kept = {name: {key: value.clone() for key, value in part.items()} for name, part in cut.parts().items()}
    again = learner(vocabulary, kind, **settings)
    again.take(kept)
    assert same(again.best, cut.average)
    steps(again, 3, 4)
    for one, other in ((whole.projector, again.projector), (whole.average, again.average), (whole.start, again.start)):
        assert same(one, other)


def test_a_kind_has_its_own_rate_unless_one_is_set(vocabulary: Vocabulary) -> None:
    assert (
        learner(vocabulary, "carrier", optimizer={"learning_rate": None}).set_rate(1) == KINDS["carrier"].learning_rate
    )
    assert learner(vocabulary, "carrier").set_rate(1) == 0.1


def test_copies_share_the_backbone_and_no_weights(vocabulary: Vocabulary) -> None:
    made = learner(vocabulary, "carrier")
    assert made.start._vocabulary[0].data_ptr() == made.projector._vocabulary[0].data_ptr()  # type: ignore[attr-defined]
    assert made.start.weight.data_ptr() != made.projector.weight.data_ptr()
