"""Slots and text masks hold for any prompt, not only for those of the other tests."""

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aim_backends.hf import TransformersBackend
from aim_backends.hf.slots import append_tokens, insert_slots
from aim_backends.hf.tap import Injection, attach, injected, place
from aim_sdk import Demonstration
from aim_sdk.errors import FormatError, UnsupportedModelError
from tests.conformance.families import Family, picture

SLOT, PAD = 99, 0
ROW = st.lists(st.integers(1, 50), min_size=1, max_size=6).flatmap(
    lambda ids: st.tuples(st.just(ids), st.integers(0, 4), st.integers(0, len(ids)))
)
FEW = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


def _left_padded(rows: list[list[int]]) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([[PAD] * (width - len(row)) + row for row in rows])


@given(st.lists(ROW, min_size=1, max_size=4))
def test_slots_stand_behind_the_prefix(rows: list[tuple[list[int], int, int]]) -> None:
    ids = _left_padded([row for row, _, _ in rows])
    mask = (ids != PAD).long()
    inputs = {
        "input_ids": ids,
        "attention_mask": mask,
        "token_type_ids": ids * mask,
        "image_attention_mask": (ids * mask)[..., None].expand(-1, -1, 2),
        "pixel_values": torch.ones(3),
    }
    counts, heads = [count for _, count, _ in rows], [head for _, _, head in rows]
    grown = insert_slots(inputs, counts, heads, slot=SLOT, pad=PAD)
    expected = _left_padded([[*row[:head], *[SLOT] * count, *row[head:]] for row, count, head in rows])
    assert torch.equal(grown["input_ids"], expected)
    assert torch.equal(grown["attention_mask"], (expected != PAD).long())
    text = expected.masked_fill(expected == SLOT, 0)
    assert torch.equal(grown["token_type_ids"], text)
    assert torch.equal(grown["image_attention_mask"], text[..., None].expand(-1, -1, 2))
    assert grown["pixel_values"] is inputs["pixel_values"]


@given(st.lists(ROW, min_size=1, max_size=4), st.integers(1, 3))
def test_each_slot_gets_its_own_fused_token(rows: list[tuple[list[int], int, int]], beams: int) -> None:
    ids = _left_padded([[*row[:head], *[SLOT] * count, *row[head:]] for row, count, head in rows])
    most = max(1, *(count for _, count, _ in rows), 1)
    fused = torch.randn(len(rows), most, 3)
    plain = torch.randn(len(rows) * beams, ids.shape[1], 3)
    found = place(plain, ids.repeat_interleave(beams, 0) == SLOT, fused)
    for n, row in enumerate(found):
        mask = ids[n // beams] == SLOT
        assert torch.equal(row[mask], fused[n // beams, : int(mask.sum())])
        assert torch.equal(row[~mask], plain[n][~mask])


@given(st.lists(st.integers(1, 50), min_size=1, max_size=5), st.lists(st.integers(1, 50), min_size=1, max_size=3))
def test_appended_tokens_see_what_the_last_one_sees(row: list[int], more: list[int]) -> None:
    ids = torch.tensor([row])
    inputs = {"input_ids": ids, "attention_mask": ids * 0 + 1, "image_attention_mask": ids[..., None]}
    grown = append_tokens({**inputs, "token_type_ids": ids}, torch.tensor([more]))
    assert grown["input_ids"].tolist() == [[*row, *more]]
    assert grown["attention_mask"].tolist() == [[1] * len(row + more)]
    assert grown["image_attention_mask"][0, :, 0].tolist() == [*row, *[row[-1]] * len(more)]
    assert grown["token_type_ids"].tolist() == [[*row, *[0] * len(more)]]


TEXT = st.text(max_size=30)
ANSWER = st.text(min_size=1, max_size=20).filter(lambda text: text.strip())


@FEW
@given(text=TEXT, answer=ANSWER, visual=st.integers(2, 9))
def test_text_tokens_are_found_again_behind_any_image(
    llava: TransformersBackend, text: str, answer: str, visual: int
) -> None:
    prompts = llava.backbone.prompts(llava.default_format)
    try:
        llava.backbone.check_text([text, answer])
    except FormatError:
        return
    piece = prompts.demonstration(text, answer)
    tokens = llava.backbone.tokens.demonstration(prompts, piece)
    assert piece.text[piece.answer_start : piece.answer_end] == answer.strip()
    assert 0 < tokens.image_position <= tokens.answer_start < len(tokens.ids)
    assert not llava.backbone.image_ids & set(tokens.ids)
    first, last = llava.backbone.tokens.image_span(tokens.unexpanded)
    image = tokens.unexpanded[first]
    expanded = [*tokens.unexpanded[:first], *[image] * visual, *tokens.unexpanded[last + 1 :]]
    places = llava.backbone.tokens.expanded_places(tokens, expanded)
    assert [expanded[place] for place in places] == list(tokens.ids)
    changed = [*expanded[:-1], expanded[-1] + 1]
    with pytest.raises(FormatError, match="writes the text"):
        llava.backbone.tokens.expanded_places(tokens, changed)


@settings(FEW, max_examples=10)
@given(data=st.data())
def test_any_text_reads_as_its_text_only_demonstration(family: Family, data: Any) -> None:
    demonstration = Demonstration(picture(20, 20, 0), data.draw(TEXT), data.draw(ANSWER))
    try:
        (text,) = family.backend.reader.text_only([demonstration], prompt_format=family.form)
    except FormatError:
        return
    (reading,) = family.backend.reader.read([demonstration], prompt_format=family.form)
    assert torch.equal(reading.embeddings, text.embeddings)
    assert reading.image_position <= reading.answer_start < len(reading)


class _PerLayer(torch.nn.Module):
    """Looks ids up twice, as Gemma 3n and Gemma 4 do; or as BLIP-2, which embeds them in `generate`."""

    def __init__(self) -> None:
        super().__init__()
        self.once, self.again = torch.nn.Embedding(8, 3), torch.nn.Embedding(8, 3)
        self.head = torch.nn.Linear(3, 8)

    def get_input_embeddings(self) -> torch.nn.Module:
        return self.once

    def get_output_embeddings(self) -> torch.nn.Module:
        return self.head

    def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.once(ids), self.again(ids)


@pytest.mark.parametrize("backends", [1, 2])
def test_a_second_look_at_the_ids_sees_what_fused_tokens_stand_for(backends: int) -> None:
    model, ids = _PerLayer(), torch.tensor([[1, 7, 2]])
    for _ in range(backends):
        attach(model)
    fused = torch.ones(1, 1, 3)
    with torch.no_grad(), injected(Injection(fused, torch.tensor([[5]]), slot=7)):
        first, second = model(ids)
        assert torch.equal(model.get_input_embeddings()(ids)[0, 1], fused[0, 0])
    assert torch.equal(first[0, 1], fused[0, 0])
    assert torch.equal(second[0], model.again.weight[[1, 5, 2]])
    assert torch.equal(model(ids)[1][0], model.again.weight[[1, 7, 2]])


class _Flat(_PerLayer):
    def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return super().forward(ids[0])


def test_a_model_that_embeds_in_its_own_way_never_drops_fused_tokens() -> None:
    model = _Flat()
    attach(model)
    injection = Injection(torch.ones(1, 1, 3), torch.tensor([[5]]), slot=7)
    with injected(injection), pytest.raises(UnsupportedModelError, match="_Flat embeds its input"):
        model(torch.tensor([[1, 7, 2]]))
    model(torch.tensor([[1, 7, 2]]))
