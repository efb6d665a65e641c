"""Fused tokens that are true embeddings give exactly the plain model: the test that catches every wrong mask,
position id or lost image. And nothing but them is changed, ever."""

import threading
from dataclasses import replace
from typing import Any

import pytest
import torch

from aim_backends.hf import TransformersBackend
from aim_sdk import PromptFormat, load_image
from tests.conformance.families import DEMONSTRATIONS, QUERIES, Family

UNEQUAL = [[0, 1, 2], [], [1]]
"""Contexts of one batch: by the demonstrations' places."""


def test_true_embeddings_give_the_plain_logits(family: Family) -> None:
    contexts = [family.text_only(*places) for places in UNEQUAL]
    prepared = family.backend.injector.prepare(QUERIES, contexts, prompt_format=family.form)
    with torch.no_grad():
        expected = family.plain(**family.true_inputs(prepared, UNEQUAL)).logits
        with family.backend.injector.injected(prepared):
            found = family.backend.model(**prepared.inputs).logits
    assert torch.equal(found, expected)


@pytest.mark.parametrize("beams", [1, 3])
def test_true_embeddings_give_the_plain_answers(family: Family, beams: int) -> None:
    contexts = [family.text_only(*places) for places in UNEQUAL]
    prepared = family.backend.injector.prepare(QUERIES, contexts, prompt_format=family.form)
    options = {"max_new_tokens": 6, "num_beams": beams, "suppress_tokens": [family.backend.slot]}
    inputs = family.true_inputs(prepared, UNEQUAL)
    expected = family.plain.generate(**inputs, do_sample=False, **options)[:, inputs["input_ids"].shape[1] :]
    answers = family.backend.injector.generate(QUERIES, contexts, prompt_format=family.form, **options)
    for answer, row in zip(answers, expected.tolist(), strict=True):
        assert list(answer.token_ids) == row[: len(answer.token_ids)]
    assert [answer.prompt_tokens for answer in answers] == inputs["attention_mask"].sum(1).tolist()


def test_per_token_tensors_are_the_processors_own(family: Family) -> None:
    """Write the text-only prompt as a string: what the processor makes of it is what the injector prepares."""
    blank = "" if family.variant == "idefics" else " "  # that processor strips it
    form = PromptFormat.plain(f"{{image}}{blank}Q: {{text}}\nA: {{answer}}\n")
    texts = family.backend.reader.text_only(DEMONSTRATIONS[:2], prompt_format=form)
    prepared = family.backend.injector.prepare(QUERIES[:2], [texts, []], prompt_format=form)
    readings = family.backend.reader.read(DEMONSTRATIONS[:2], prompt_format=form)
    ids = prepared.inputs["input_ids"]
    ids[ids == family.backend.slot] = torch.cat([reading.token_ids for reading in readings])
    shown = "".join(f"{blank}Q: {d.text}\nA: {d.answer}\n" for d in DEMONSTRATIONS[:2])
    mark = family.backend.backbone.placeholder
    prompts = [f"{shown}{mark}{blank}Q: {QUERIES[0].text}\nA:", f"{mark}{blank}Q: {QUERIES[1].text}\nA:"]
    images = [[load_image(query.image)] for query in QUERIES[:2]]
    expected = family.backend.backbone.process(prompts, images, padding_side="left")
    assert expected.keys() == prepared.inputs.keys()
    for name, value in expected.items():
        assert _same(prepared.inputs[name], value), name


def _same(one: Any, other: Any) -> bool:
    """Equal tensors, or lists: Unlimited-OCR counts tiles in lists."""
    return bool(torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other)


def test_no_demonstration_is_the_plain_model_bit_for_bit(family: Family) -> None:
    query = QUERIES[1]
    inputs = family.native(query)
    prepared = family.backend.injector.prepare([query], [[]], prompt_format=family.form)
    assert {name for name in inputs if isinstance(inputs[name], torch.Tensor)} <= set(prepared.inputs)
    assert all(_same(value, inputs[name]) for name, value in prepared.inputs.items())
    expected = family.plain.generate(**inputs, do_sample=False, max_new_tokens=8)
    (answer,) = family.backend.injector.generate([query], [[]], prompt_format=family.form, max_new_tokens=8)
    found = list(answer.token_ids)
    assert found == expected[0, inputs["input_ids"].shape[1] :].tolist()[: len(found)]
    with torch.no_grad():
        assert torch.equal(family.backend.model(**prepared.inputs).logits, family.plain(**inputs).logits)


def test_gradient_reaches_the_fused_tokens_only(family: Family) -> None:
    fused = [replace(item, embeddings=item.embeddings.clone().requires_grad_()) for item in family.text_only(0, 1)]
    prepared = family.backend.injector.prepare(QUERIES[:2], [fused, fused[:1]], prompt_format=family.form)
    with family.backend.injector.injected(prepared):
        family.backend.model(**prepared.inputs).logits[:, -1].logsumexp(-1).sum().backward()
    for item in fused:
        assert item.embeddings.grad is not None
        assert (item.embeddings.grad.abs().sum(1) > 0).all()
    assert all(parameter.grad is None for parameter in family.backend.model.parameters())


def test_another_thread_sees_no_injection(llava: TransformersBackend) -> None:
    form = llava.default_format
    fused = llava.reader.text_only(DEMONSTRATIONS[:1], prompt_format=form)
    prepared = llava.injector.prepare(QUERIES[:1], [fused], prompt_format=form)
    found = []

    def run() -> None:
        with torch.no_grad():
            found.append(llava.model(**prepared.inputs).logits)

    run()
    with llava.injector.injected(prepared):
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        run()
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
