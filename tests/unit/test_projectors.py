import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aim_sdk import CarrierProjector, LinearProjector, Projector, Reading, ReadingBatch, ResidualProjector
from aim_sdk.errors import InputError

HIDDEN, EMBED = 6, 4
KINDS = [LinearProjector, ResidualProjector, CarrierProjector]


def reading(tokens: int, seed: int, image_position: int = 0) -> Reading:
    draw = torch.Generator().manual_seed(seed)
    return Reading(
        token_ids=torch.arange(tokens),
        hidden=torch.randn(tokens, HIDDEN, generator=draw),
        embeddings=torch.randn(tokens, EMBED, generator=draw),
        image_position=image_position,
        answer_start=tokens - 1,
    )


class Vocabulary:
    """The part of a backend that a projector may bind to; its matrices have unequal numbers of rows."""

    input_embeddings = torch.randn(11, EMBED, generator=torch.Generator().manual_seed(7))
    output_embeddings = torch.randn(10, HIDDEN, generator=torch.Generator().manual_seed(8))


def randomized(cls: type[Projector]) -> Projector:
    torch.manual_seed(0)
    projector = cls(HIDDEN, EMBED)
    projector.bind(Vocabulary())  # type: ignore[arg-type]
    for parameter in projector.parameters():
        torch.nn.init.normal_(parameter)
    return projector.eval()


@pytest.mark.parametrize("cls", KINDS)
@given(lengths=st.lists(st.integers(3, 9), min_size=1, max_size=4))
def test_a_batch_equals_its_readings_one_by_one(cls: type[Projector], lengths: list[int]) -> None:
    """Catches padding that leaks into a projection, and rows that see each other."""
    projector = randomized(cls)
    readings = [reading(tokens, seed, image_position=1) for seed, tokens in enumerate(lengths)]
    together = projector.project(readings)
    for one, fused in zip(readings, together, strict=True):
        assert len(fused) == len(one)
        torch.testing.assert_close(fused.embeddings, projector.project([one])[0].embeddings)


def test_an_untrained_residual_is_the_text_itself() -> None:
    one = reading(5, 0)
    assert torch.equal(ResidualProjector(HIDDEN, EMBED).project([one])[0].embeddings, one.embeddings)


def test_a_carrier_changes_only_the_token_where_the_image_stood() -> None:
    one = reading(6, 0, image_position=2)
    fused = randomized(CarrierProjector).project([one])[0].embeddings
    changed = (fused != one.embeddings).any(1)
    assert changed.tolist() == [False, False, True, False, False, False]


def test_a_carrier_reads_the_token_before_the_answer() -> None:
    one = reading(6, 0, image_position=2)
    projector = randomized(CarrierProjector)
    one.hidden.requires_grad_(True)
    projector.project([one])[0].embeddings.sum().backward()
    assert one.hidden.grad is not None
    assert one.hidden.grad.abs().sum(1).nonzero().flatten().tolist() == [one.answer_start - 1]


@pytest.mark.parametrize("cls", KINDS)
def test_every_parameter_gets_a_gradient(cls: type[Projector]) -> None:
    projector = randomized(cls)
    sum(fused.embeddings.square().sum() for fused in projector.project([reading(5, 1), reading(3, 2)])).backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in projector.parameters())


def test_dtype_is_the_embeddings() -> None:
    one = reading(4, 0)
    half = Reading(one.token_ids, one.hidden.bfloat16(), one.embeddings.bfloat16(), 0, 3)
    for cls in KINDS:
        assert randomized(cls).project([half])[0].embeddings.dtype == torch.bfloat16


def test_an_untrained_carrier_is_the_embedding_of_the_expected_token() -> None:
    """A reading that points at one token, far from all others, is carried as that token's (normalised) embedding."""
    projector = CarrierProjector(HIDDEN, EMBED)
    projector.bind(Vocabulary())  # type: ignore[arg-type]
    for token in range(10):
        value = projector.value(1e4 * Vocabulary.output_embeddings[token][None])
        best = (1e4 * Vocabulary.output_embeddings[token] @ Vocabulary.output_embeddings.T).argmax()
        expected = torch.nn.functional.layer_norm(Vocabulary.input_embeddings[best], (EMBED,))
        torch.testing.assert_close(value[0], expected)


def test_a_carrier_says_that_it_is_not_bound() -> None:
    with pytest.raises(InputError, match=r"bind\(backend\)"):
        CarrierProjector(HIDDEN, EMBED).project([reading(5, 0)])


def test_collate_pads_on_the_right() -> None:
    batch = ReadingBatch.collate([reading(5, 0), reading(3, 1)])
    assert batch.hidden.shape == (2, 5, HIDDEN)
    assert batch.mask.tolist() == [[True] * 5, [True] * 3 + [False] * 2]


def test_no_readings_no_fused_tokens() -> None:
    assert LinearProjector(HIDDEN, EMBED).project([]) == []
