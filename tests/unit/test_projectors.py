from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aim_sdk import LinearProjector, Projector, Reading, ReadingBatch
from aim_sdk.errors import FingerprintError, InputError
from aim_sdk.projectors import KINDS, CarrierProjector, LinearCarrierProjector, untrained
from aim_sdk.types import Vocabulary
from tests.unit.test_types_and_config import FINGERPRINT

HIDDEN, EMBED = 6, 4
TEXT_AT_FIRST = ["residual", "residual-mlp", "attention"]
"""Kinds that are text-only demonstrations before training."""
LAYERS = [(-1,), (1, -1), (0, 2, -1)]
OPTIONS: dict[str, dict[str, Any]] = {
    "residual-mlp": {"inner": 5},
    "attention": {"heads": 2, "inner": 6},
    "carrier": {"place": "before"},
    "carrier-linear": {"place": "before"},
}

kinds = pytest.mark.parametrize("kind", KINDS)


def reading(tokens: int, seed: int, image_position: int = 0, layers: int = 1) -> Reading:
    draw = torch.Generator().manual_seed(seed)
    return Reading(
        token_ids=torch.arange(tokens),
        hidden=torch.randn(tokens, layers * HIDDEN, generator=draw),
        embeddings=torch.randn(tokens, EMBED, generator=draw),
        image_position=image_position,
        answer_start=tokens - 1,
    )


VOCABULARY = Vocabulary(
    inputs=torch.randn(11, EMBED, generator=torch.Generator().manual_seed(7)),
    outputs=torch.randn(10, HIDDEN, generator=torch.Generator().manual_seed(8)),
    fingerprint=FINGERPRINT.model_copy(update={"hidden_size": HIDDEN, "embedding_size": EMBED, "embedding_rms": 0.25}),
    decoder_layers=30,
)
"""Of a backbone whose matrices have unequal numbers of rows."""


def randomized(kind: str, layers: tuple[int, ...] = (-1,), **options: Any) -> Projector:
    torch.manual_seed(0)
    projector = untrained(kind, VOCABULARY, layers=layers, **options)
    for parameter in projector.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return projector.eval()


def step(projector: Projector, readings: list[Reading]) -> list[str]:
    """One step of gradient descent; the names of the parameters that no gradient has reached."""
    projector.zero_grad()
    sum(fused.embeddings.square().sum() for fused in projector.project(readings)).backward()
    missed = [name for name, p in projector.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    torch.optim.SGD(projector.parameters(), 0.1).step()
    return missed


@kinds
@given(data=st.data())
def test_a_batch_equals_its_readings_one_by_one(kind: str, data: st.DataObject) -> None:
    """Catches padding that leaks into a projection, and rows that see each other."""
    layers = data.draw(st.sampled_from(LAYERS))
    lengths = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    projector = randomized(kind, layers, **data.draw(st.sampled_from([{}, OPTIONS.get(kind, {})])))
    readings = [reading(n, seed, min(1, n - 1), len(layers)) for seed, n in enumerate(lengths)]
    for one, fused in zip(readings, projector.project(readings), strict=True):
        assert len(fused) == len(one)
        torch.testing.assert_close(fused.embeddings, projector.project([one])[0].embeddings, atol=1e-5, rtol=1e-5)


@kinds
@given(lengths=st.lists(st.integers(1, 9), min_size=2, max_size=4), content=st.sampled_from([1e4, torch.nan]))
def test_what_stands_at_padding_changes_nothing(kind: str, lengths: list[int], content: float) -> None:
    projector = randomized(kind)
    batch = ReadingBatch.collate([reading(tokens, seed) for seed, tokens in enumerate(lengths)])
    padding = ~batch.mask[..., None]
    spoilt = replace(
        batch,
        hidden=batch.hidden.masked_fill(padding, content),
        embeddings=batch.embeddings.masked_fill(padding, content),
    )
    assert torch.equal(projector(spoilt)[batch.mask], projector(batch)[batch.mask])


@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("kind", TEXT_AT_FIRST)
def test_an_untrained_residual_is_the_text_itself(kind: str, layers: tuple[int, ...]) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        one = reading(5, 0, layers=len(layers))
        half = replace(one, hidden=one.hidden.to(dtype), embeddings=one.embeddings.to(dtype))
        projector = untrained(kind, VOCABULARY, layers=layers)
        assert torch.equal(projector.project([half])[0].embeddings, half.embeddings)


@kinds
@pytest.mark.parametrize("layers", LAYERS)
def test_gradients_reach_every_parameter(kind: str, layers: tuple[int, ...]) -> None:
    """From where training begins it may take a step until nothing is multiplied by a zero any more."""
    readings = [reading(5, 1, layers=len(layers)), reading(3, 2, layers=len(layers))]
    projector = untrained(kind, VOCABULARY, layers=layers, **OPTIONS.get(kind, {})).requires_grad_()
    step(projector, readings)
    assert step(projector, readings) == []
    assert step(randomized(kind, layers), readings) == []


@kinds
def test_readings_in_half_precision_and_parameters_in_full(kind: str) -> None:
    one = reading(4, 0)
    half = replace(one, hidden=one.hidden.bfloat16(), embeddings=one.embeddings.bfloat16())
    projector = randomized(kind)
    assert {parameter.dtype for parameter in projector.parameters()} == {torch.float32}
    fused = projector.project([half])[0].embeddings
    assert fused.dtype == torch.bfloat16
    whole = projector.project([replace(half, hidden=half.hidden.float(), embeddings=half.embeddings.float())])
    torch.testing.assert_close(fused.float(), whole[0].embeddings, atol=0.05, rtol=0.05)


@kinds
def test_several_layers_are_several_layers(kind: str) -> None:
    """Every layer that a projector reads can change what it gives."""
    projector, one = randomized(kind, (1, -1)), reading(5, 0, layers=2)
    usual = projector.project([one])[0].embeddings
    for layer in range(2):
        hidden = one.hidden.clone()
        hidden[:, layer * HIDDEN : (layer + 1) * HIDDEN] += torch.arange(HIDDEN)
        assert not torch.allclose(projector.project([replace(one, hidden=hidden)])[0].embeddings, usual)


@pytest.mark.parametrize("kind", ["residual", "residual-mlp", "attention", "carrier-linear"])
def test_a_layers_scale_does_not_matter(kind: str) -> None:
    """The norm is of each layer on its own."""
    projector, one = randomized(kind, (1, -1)), reading(5, 0, layers=2)
    hidden = torch.cat([one.hidden[:, :HIDDEN] * 50, one.hidden[:, HIDDEN:]], 1)
    fused = [projector.project([replace(one, hidden=states)])[0].embeddings for states in (one.hidden, hidden)]
    torch.testing.assert_close(*fused, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("kind", ["carrier", "carrier-linear"])
@settings(max_examples=60, deadline=None)
@given(tokens=st.integers(1, 8), data=st.data())
def test_a_carrier_changes_one_token_where_the_image_stood(kind: str, tokens: int, data: st.DataObject) -> None:
    answer = data.draw(st.integers(0, tokens - 1), label="answer_start")
    image = data.draw(st.integers(0, answer), label="image_position")
    one = replace(reading(tokens, 0, image), answer_start=answer)
    for place, wanted in (("after", image), ("before", max(0, image - 1))):
        fused = randomized(kind, place=place).project([one])[0].embeddings
        changed = (fused != one.embeddings).any(1).nonzero().flatten().tolist()
        assert changed == ([min(wanted, answer - 2)] if answer > 1 else [])


@pytest.mark.parametrize("kind", ["carrier", "carrier-linear"])
def test_a_carrier_reads_the_token_before_the_answer(kind: str) -> None:
    one = reading(6, 0, image_position=2)
    one.hidden.requires_grad_(True)
    randomized(kind).project([one])[0].embeddings.sum().backward()
    assert one.hidden.grad is not None
    assert one.hidden.grad.abs().sum(1).nonzero().flatten().tolist() == [one.answer_start - 1]


def test_an_untrained_carrier_is_the_embedding_of_the_expected_token() -> None:
    """A reading that points at one token, far from all others, is carried as that token's (normalised) embedding."""
    projector = CarrierProjector(HIDDEN, EMBED).attach(VOCABULARY)
    for token in range(10):
        value = projector.value(1e4 * VOCABULARY.outputs[token][None])
        best = (1e4 * VOCABULARY.outputs[token] @ VOCABULARY.outputs.T).argmax()
        expected = torch.nn.functional.layer_norm(VOCABULARY.inputs[best], (EMBED,))
        torch.testing.assert_close(value[0], expected)


@pytest.mark.parametrize("layers", LAYERS)
def test_an_untrained_linear_carrier_maps_output_directions_to_input_embeddings(layers: tuple[int, ...]) -> None:
    draw = torch.Generator().manual_seed(3)

    # The embeddings are a linear map of the LM head's rows: the regression can find it.
    outputs = torch.randn(300, 32, generator=draw)
    inputs = outputs @ torch.linalg.qr(torch.randn(32, 32, generator=draw))[0]
    made = VOCABULARY.fingerprint.model_copy(update={"hidden_size": 32, "embedding_size": 32})
    vocabulary = Vocabulary(inputs, outputs, made)
    projector = LinearCarrierProjector.untrained(vocabulary, layers=layers)
    read = torch.cat([torch.randn(300, 32 * (len(layers) - 1)), 7 * outputs], 1)
    with torch.no_grad():
        value = projector.value(read)
    assert (value @ inputs.T).argmax(1).tolist() == list(range(300))
    torch.testing.assert_close(value.square().mean().sqrt(), torch.tensor(0.25), atol=0.02, rtol=0)


def test_a_linear_carrier_is_calibrated_by_readings() -> None:
    readings = [reading(5, seed) for seed in range(4)]
    projector = LinearCarrierProjector(HIDDEN, EMBED)
    projector.calibrate(readings)
    torch.testing.assert_close(projector.mean, torch.stack([one.hidden[3] for one in readings]).mean(0))
    assert "mean" in projector.state_dict()


def test_the_norm_behind_a_linear_layer_gives_the_scale_of_the_embeddings() -> None:
    fused = untrained("linear-norm", VOCABULARY).project([reading(50, 0)])[0].embeddings
    torch.testing.assert_close(fused.square().mean().sqrt(), torch.tensor(0.25), atol=1e-3, rtol=0)


def test_rates_are_of_parameters() -> None:
    for kind in KINDS:
        projector = untrained(kind, VOCABULARY, layers=(1, -1))
        rates = {name: projector.rate(name) for name, _ in projector.named_parameters()}
        fast = {name for name, rate in rates.items() if rate == 10}
        assert set(rates.values()) <= {1.0, 10.0}
        assert fast == ({name for name in rates if "norm" in name or name == "gate"} if "carrier" in kind else set())


def test_a_carrier_says_that_it_is_not_attached() -> None:
    with pytest.raises(InputError, match=r"attach\(backend.vocabulary\)"):
        CarrierProjector(HIDDEN, EMBED).project([reading(5, 0)])


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("residul", {}, "Did you mean 'residual'"),
        ("attention", {"head": 2}, "no option named 'head'. Did you mean 'heads'"),
        ("linear", {"heads": 2}, "There are none"),
        ("attention", {"heads": 3, "inner": 8}, "multiple"),
        ("attention", {"heads": 0}, "multiple"),
        ("residual-mlp", {"inner": 0}, "width"),
        ("carrier", {"place": "befor"}, "Did you mean 'before'"),
        ("carrier", {"layers": (3,)}, "carrier-linear"),
        ("carrier", {"layers": (-1, 3)}, "carrier-linear"),
        ("linear", {"layers": ()}, "one or more"),
        ("linear", {"layers": (2, 2)}, "twice"),
        ("linear", {"layers": (1.5,)}, "integer"),
    ],
)
def test_what_cannot_be_built_is_explained(kind: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        untrained(kind, VOCABULARY, **options)


@pytest.mark.parametrize("layer", [31, -32])
def test_a_layer_that_the_backbone_has_not_is_refused_when_it_is_made(layer: int) -> None:
    with pytest.raises(InputError, match=f"layer {layer}: this backbone has 30 decoder layers"):
        untrained("linear", VOCABULARY, layers=(layer,))
    assert untrained("linear", VOCABULARY, layers=(30, -31, 0)).layers == (30, -31, 0)


def test_a_projector_that_a_backend_made_is_saved_as_it_is(tmp_path: Path) -> None:
    made = untrained("carrier", VOCABULARY, layers=(24, -1), place="after")
    made.save_pretrained(tmp_path)
    found = Projector.from_pretrained(tmp_path)
    assert (found.fingerprint, found.layers, found.kind) == (VOCABULARY.fingerprint, (24, -1), "carrier")
    untrained("carrier", VOCABULARY, layers=(24, -1), place="before").save_pretrained(tmp_path / "before")
    assert "layers 24, -1; place=before" in (tmp_path / "before" / "README.md").read_text()


def test_collate_pads_on_the_right() -> None:
    batch = ReadingBatch.collate([reading(5, 0), reading(3, 1)])
    assert batch.hidden.shape == (2, 5, HIDDEN)
    assert batch.mask.tolist() == [[True] * 5, [True] * 3 + [False] * 2]


def test_no_readings_no_fused_tokens() -> None:
    assert LinearProjector(HIDDEN, EMBED).project([]) == []


@pytest.mark.parametrize("kind", ["carrier", "carrier-linear"])
def test_new_carriers_take_the_token_before_the_image(kind: str) -> None:
    assert untrained(kind, VOCABULARY).options == KINDS[kind](HIDDEN, EMBED).options == {"place": "before"}
    assert untrained(kind, VOCABULARY, place="after").options == {"place": "after"}


def test_a_projector_is_attached_in_place() -> None:
    projector = LinearProjector(HIDDEN, EMBED).train()
    before = projector.identity
    assert projector.attach(VOCABULARY) is projector
    assert (projector.fingerprint, projector.training) == (VOCABULARY.fingerprint, False)
    assert projector.identity == before


def test_a_fingerprint_of_its_own_stays() -> None:
    """One backbone has several true fingerprints: other library versions, another path."""
    projector = untrained("linear", VOCABULARY)
    moved = VOCABULARY.fingerprint.model_copy(update={"model": "elsewhere", "libraries": {"torch": "9"}})
    projector.attach(replace(VOCABULARY, fingerprint=moved))
    assert projector.fingerprint == VOCABULARY.fingerprint


def test_a_projector_is_not_attached_to_what_it_does_not_fit() -> None:
    other = VOCABULARY.fingerprint.model_copy(update={"embedding_hash": "x"})
    with pytest.raises(FingerprintError, match="embedding_hash"):
        untrained("linear", VOCABULARY).attach(replace(VOCABULARY, fingerprint=other))
    with pytest.raises(InputError, match=rf"maps {HIDDEN + 1} -> {EMBED}, but 'm' needs {HIDDEN} -> {EMBED}"):
        LinearProjector(HIDDEN + 1, EMBED).attach(VOCABULARY)
    with pytest.raises(InputError, match="layer 31: this backbone has 30 decoder layers"):
        LinearProjector(HIDDEN, EMBED, layers=(31,)).attach(VOCABULARY)
