"""A carrier that is fitted to what images look like: exact where the relation is linear, and nothing else changes."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from aim_sdk.projectors import CarrierProjector
from aim_sdk.types import Reading
from tests.unit.test_projectors import EMBED, HIDDEN, VOCABULARY, reading

LAYERS = (1, -1)


def carrier(layers: tuple[int, ...] = LAYERS) -> CarrierProjector:
    return CarrierProjector.untrained(VOCABULARY, layers=layers)


def earlier(one: Reading) -> Tensor:
    """The earlier layer's state at the last token before the answer, as the carrier's norm sees it."""
    return torch.nn.functional.layer_norm(one.hidden[one.answer_start - 1, :HIDDEN], (HIDDEN,))


def readings(count: int, relation: Tensor) -> list[Reading]:
    """Readings whose images look as a linear map of the earlier layer says, and a constant."""
    shown = [reading(5, seed, layers=2) for seed in range(count)]
    return [replace(one, visual=earlier(one) @ relation + 3) for one in shown]


@pytest.mark.parametrize("layers", [LAYERS, (0, 1, -1)])
def test_a_fitted_carrier_adds_how_an_image_differs_from_the_others(layers: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    relation = torch.randn(HIDDEN, EMBED)
    shown = readings(400, relation)
    if len(layers) == 3:
        shown = [replace(one, hidden=torch.cat([one.hidden[:, :HIDDEN], one.hidden], 1)) for one in shown]
    before, after = carrier(layers), carrier(layers)
    assert after.fit(iter(shown)) == 400
    last = torch.stack([one.hidden[one.answer_start - 1] for one in shown])
    with torch.no_grad():
        added = after.value(last) - before.value(last)
    visual = torch.stack([one.visual for one in shown if one.visual is not None])
    differs = visual - visual.mean(0)
    cosine = torch.nn.functional.cosine_similarity(added, differs)
    assert cosine.min() > 0.95, "the ridge makes it shorter, not other"
    torch.testing.assert_close(added.mean(0), torch.zeros(EMBED), atol=1e-5, rtol=0)
    same = {name for name, value in after.state_dict().items() if torch.equal(value, before.state_dict()[name])}
    assert set(after.state_dict()) - same == {"others.weight", "others_norm.bias"}


def test_the_order_of_readings_and_a_repeated_fit_change_nothing() -> None:
    torch.manual_seed(0)
    shown = readings(60, torch.randn(HIDDEN, EMBED))
    one, other = carrier(), carrier()
    one.fit(shown)
    other.fit(reversed(shown))
    other.fit(shown)
    for name, value in one.state_dict().items():
        torch.testing.assert_close(value, other.state_dict()[name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("layers", [(-1,), LAYERS])
def test_what_cannot_be_fitted_stays_as_it_is(layers: tuple[int, ...]) -> None:
    """Readings without what their images look like, a single one, or a carrier of the last layer alone."""
    made, before = carrier(layers), carrier(layers).state_dict()
    blind = [reading(5, seed, layers=len(layers)) for seed in range(9)]
    assert made.fit(blind) == 0
    seen = [replace(one, visual=torch.ones(EMBED)) for one in blind]
    assert made.fit(seen[:1]) == 0
    assert made.fit([]) == 0
    if layers == (-1,):
        assert made.fit(seen) == 0
    same = replace(reading(5, 0, layers=len(layers)), visual=torch.ones(EMBED))
    assert made.fit([same] * 7) == 0
    assert made.fit([replace(one, visual=torch.full((EMBED,), torch.nan)) for one in blind]) == 0
    assert made.fit([replace(one, hidden=one.hidden * torch.nan, visual=torch.ones(EMBED)) for one in blind]) == 0
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())
