"""The proof of a frozen backbone: whatever changes is seen."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from aim_sdk.errors import TrainingError
from aim_sdk.training import frozen
from aim_sdk.training.frozen import check_frozen, checksum

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int8, torch.bool)


def module(*values: Tensor) -> nn.Module:
    """A module of buffers."""
    made = nn.Module()
    for number, value in enumerate(values):
        made.register_buffer(f"value{number}", value)
    return made


def total(*values: Tensor) -> str:
    return checksum([module(*values)])


@settings(deadline=None)
@given(data=st.data(), dtype=st.sampled_from(DTYPES[:5]), size=st.integers(1, 41), seed=st.integers(0, 99))
def test_any_single_changed_bit_is_seen(data: st.DataObject, dtype: torch.dtype, size: int, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    value = torch.randint(0, 256, (size * dtype.itemsize,), dtype=torch.uint8, generator=rng).view(dtype)
    before = total(value)
    assert total(value.clone()) == before
    place = data.draw(st.integers(0, size * dtype.itemsize - 1))
    bit = data.draw(st.integers(0, 7))
    value.view(torch.uint8)[place] ^= 1 << bit
    assert total(value) != before
    value.view(torch.uint8)[place] ^= 1 << bit
    assert total(value) == before


@settings(deadline=None)
@given(
    data=st.data(),
    values=st.lists(st.integers(-4, 4).map(lambda n: n / 2) | st.floats(width=32), min_size=2, max_size=9),
    dtype=st.sampled_from(DTYPES[:4]),
)
def test_any_other_order_is_seen(data: st.DataObject, values: list[float], dtype: torch.dtype) -> None:
    value = torch.tensor(values, dtype=torch.float32).to(dtype)
    other = value[torch.tensor(data.draw(st.permutations(range(len(values)))))]
    same = torch.equal(value.view(torch.uint8), other.view(torch.uint8))
    assert (total(value) == total(other)) == same


def test_evenly_spaced_numbers_in_every_order_are_told_apart() -> None:
    """A sum that is weighted by place takes some of them for one another."""
    orders = list(itertools.permutations([1.0, 1.5, 2.0, 3.0]))
    assert len({total(torch.tensor(order)) for order in orders}) == len(orders)


def test_two_values_that_change_places_are_seen_across_the_parts_of_a_large_tensor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    value = torch.randn(64, generator=torch.Generator().manual_seed(0))
    whole = total(value)
    monkeypatch.setattr(frozen, "_CHUNK", 7)
    for one, other in itertools.combinations(range(64), 2):
        swapped = value.clone()
        swapped[[one, other]] = swapped[[other, one]]
        assert total(swapped) != whole
    assert total(value) == whole, "how large the parts are does not matter"


def test_names_shapes_and_the_order_of_modules_are_seen() -> None:
    one, other = torch.arange(6.0), torch.arange(6.0) + 1
    sums = [
        total(one, other),
        total(other, one),
        total(one.view(2, 3), other),
        checksum([module(one), module(other)]),
        checksum([module(other), module(one)]),
        total(one),
        total(torch.zeros(6)),
        total(torch.zeros(7)),
    ]
    assert len(set(sums)) == len(sums)


def test_parameters_and_buffers_are_seen_and_equal_weights_are_equal() -> None:
    def made() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3), nn.Linear(3, 2, dtype=torch.bfloat16))

    before = checksum([made()])
    assert checksum([made()]) == before
    assert checksum([made().eval().requires_grad_(False)]) == before
    for name in made().state_dict():
        changed = made()
        with torch.no_grad():
            changed.state_dict()[name] += 1
        assert checksum([changed]) != before, name


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_kind_of_tensor_has_a_sum(dtype: torch.dtype) -> None:
    """Of no elements, of one, not contiguous, and inside another's storage at an odd place."""
    value = (torch.arange(40) % 3).to(dtype)
    sums = [total(part) for part in (value[:0], value[5], value[1:9], value[::2], value.view(5, 8).T)]
    assert len(set(sums)) == len(sums)
    assert total(value[1:9]) == total(value[1:9].clone())
    assert total(value.view(5, 8).T) == total(value.view(5, 8).T.contiguous())


def test_a_backbone_that_could_learn_is_refused() -> None:
    still = nn.Linear(2, 2).requires_grad_(False)
    check_frozen([still])
    learning = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)).requires_grad_(False)
    learning[1].bias.requires_grad_()
    with pytest.raises(TrainingError, match=r"1 of its parameters require gradients, 1\.bias for example") as raised:
        check_frozen([still, learning])
    assert "Next:" in str(raised.value)
