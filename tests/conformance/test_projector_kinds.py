"""Every projector kind on every family: the layers it reads, and the token that a carrier takes."""

import pytest
import torch

from aim_sdk import PromptFormat, ReadingBatch
from aim_sdk.errors import CapabilityError, InputError
from aim_sdk.projectors import KINDS, untrained
from aim_sdk.projectors.carrier import Carrier
from tests.conformance.families import DEMONSTRATIONS, Family

ONE_SHAPE = dict.fromkeys(("gemma3n", "qwen4-exp", "glm5-next"), "its layers' states are several streams each")
"""Families that give the last hidden states alone."""


def test_layers_are_the_plain_models(family: Family) -> None:
    backend = family.backend
    if family.variant in ONE_SHAPE:
        with pytest.raises(CapabilityError, match="one shape"):
            backend.reader.read(DEMONSTRATIONS[:1], prompt_format=family.form, layers=(1,))
        pytest.skip(ONE_SHAPE[family.variant])
    prompts = backend.backbone.prompts(family.form)
    (reading,) = backend.reader.read(DEMONSTRATIONS[:1], prompt_format=family.form, layers=(0, 1, -2, -1))
    usual, _ = backend.reader.read(DEMONSTRATIONS[:2], prompt_format=family.form)
    layers = reading.hidden.chunk(4, 1)
    assert torch.equal(layers[-1], backend.reader.read(DEMONSTRATIONS[:1], prompt_format=family.form)[0].hidden)
    torch.testing.assert_close(layers[-1], usual.hidden, atol=2e-5, rtol=1e-4)
    piece = prompts.demonstration(DEMONSTRATIONS[0].text, DEMONSTRATIONS[0].answer)
    inputs = backend.backbone.process([prompts.prefix + piece.text], [[DEMONSTRATIONS[0].image]], padding_side="left")
    if backend.backbone.answer_type:
        inputs["token_type_ids"][0, reading.answer_start - len(reading) :] = backend.backbone.answer_type
    with torch.no_grad():
        outputs = family.plain(**inputs, output_hidden_states=True)
    *states, last = getattr(outputs, "language_model_outputs", outputs).hidden_states
    states.append(last / getattr(family.plain.config.get_text_config(), "logits_mup_width_multiplier", 1))  # Inkling
    for found, layer in zip(layers, (0, 1, -2, -1), strict=True):
        apart = (found[:, None] - states[layer]).abs().amax(2)  # (text tokens, the plain model's positions)
        assert apart.amin(1).max() < 1e-4, f"layer {layer}"
    count = len(states) - 1
    for missing in (count + 1, -count - 2):
        with pytest.raises(InputError, match=f"layer {missing}: this backbone has {count} decoder layers"):
            backend.reader.read(DEMONSTRATIONS[:1], prompt_format=family.form, layers=(missing,))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_fits_and_reads_two_layers(family: Family, kind: str) -> None:
    backend = family.backend
    layers = (-1,) if family.variant in ONE_SHAPE else (1, -1)
    projector = untrained(kind, backend.vocabulary, layers=layers)
    options = {} if family.variant in ONE_SHAPE else {"layers": layers}
    readings = backend.reader.read(DEMONSTRATIONS, prompt_format=family.form, **options)
    with torch.no_grad():
        fused = projector.project(readings)
    assert [tokens.embeddings.shape for tokens in fused] == [reading.embeddings.shape for reading in readings]
    assert all(tokens.embeddings.isfinite().all() for tokens in fused)


def test_a_carrier_is_a_text_token_that_may_change(family: Family) -> None:
    """Whatever the template: inside the demonstration, never the token before the answer and never the answer."""
    forms = [family.form, PromptFormat.plain("{image}Output:{answer}\n"), PromptFormat.plain("{image} {answer}\n")]
    for form in forms:
        readings = family.backend.reader.read(DEMONSTRATIONS, prompt_format=form)
        for place in ("before", "after"):
            projector = untrained("carrier", family.backend.vocabulary, place=place)
            assert isinstance(projector, Carrier)
            chosen = projector.places(ReadingBatch.collate(readings)).tolist()
            with torch.no_grad():
                fused = projector.project(readings)
            for reading, carrier, tokens in zip(readings, chosen, fused, strict=True):
                changed = (tokens.embeddings != reading.embeddings).any(1).nonzero().flatten().tolist()
                names = family.backend.backbone.tokenizer.convert_ids_to_tokens(reading.token_ids.tolist())
                table = [
                    (n, name, "image before" * (n == reading.image_position), "answer" * (n >= reading.answer_start))
                    for n, name in enumerate(names)
                ]
                assert changed == ([carrier] if reading.answer_start > 1 else []), (place, table)
                assert not changed or 0 <= carrier < reading.answer_start - 1, (place, table)
                near = reading.image_position - (place == "before")
                assert not changed or carrier in (0, near, reading.answer_start - 2), (place, table)
