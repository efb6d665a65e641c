"""A reading is the plain model's last hidden states on a demonstration's text tokens, whatever stands beside it."""

import pytest
import torch
from torch import Tensor

from aim_backends.hf.tap import lm_head
from aim_sdk import Demonstration, PromptFormat
from aim_sdk.errors import FormatError
from tests.conformance.families import DEMONSTRATIONS, IMAGE_FIRST, QUERIES, Family, picture


def test_reads_what_the_plain_model_computes(family: Family) -> None:
    backend = family.backend
    prompts = backend.backbone.prompts(family.form)
    for demonstration in DEMONSTRATIONS:
        (reading,) = backend.reader.read([demonstration], prompt_format=family.form)
        piece = prompts.demonstration(demonstration.text, demonstration.answer)
        inputs = backend.backbone.process([prompts.prefix + piece.text], [[demonstration.image]], padding_side="left")
        if backend.backbone.answer_type:
            inputs["token_type_ids"][0, reading.answer_start - len(reading) :] = backend.backbone.answer_type
        last: list[Tensor] = []  # what the head takes: a model may scale or cap what it gives
        head = lm_head(family.plain)
        hook = head.register_forward_pre_hook(lambda module, args, states=last: states.append(args[0]))
        with torch.no_grad():
            family.plain(**inputs)
            hook.remove()
            logits, expected = head(last[0][0]), head(reading.hidden)
        place = -1
        for index, row in zip(reading.token_ids.tolist(), expected, strict=True):
            far = (logits - row).abs().where(logits > -1e30, 0)  # Chameleon never writes an image's code
            same = (inputs["input_ids"][0] == index) & (far.amax(1) < 1e-4)
            later = same.nonzero().flatten()
            place = next(found for found in later.tolist() if found > place)


def test_does_not_depend_on_the_batch(family: Family) -> None:
    backend = family.backend
    together = backend.reader.read(DEMONSTRATIONS, prompt_format=family.form)
    for demonstration, found in zip(DEMONSTRATIONS, together, strict=True):
        (alone,) = backend.reader.read([demonstration], prompt_format=family.form)
        assert torch.equal(alone.token_ids, found.token_ids)
        assert torch.equal(alone.embeddings, found.embeddings)
        torch.testing.assert_close(alone.hidden, found.hidden, atol=2e-5, rtol=1e-4)
        assert (alone.image_position, alone.answer_start) == (found.image_position, found.answer_start)


def test_its_tokens_are_the_text_only_demonstration(family: Family) -> None:
    seen = family.backend.reader.read(DEMONSTRATIONS, prompt_format=family.form)
    blind = family.backend.reader.read(DEMONSTRATIONS, prompt_format=family.form, with_images=False)
    for with_image, without, text in zip(seen, blind, family.text_only(0, 1, 2), strict=True):
        assert torch.equal(with_image.token_ids, without.token_ids)
        assert torch.equal(with_image.embeddings, text.embeddings)
        assert (with_image.image_position, with_image.answer_start) == (without.image_position, without.answer_start)
        last = with_image.answer_start - 1
        assert not torch.allclose(with_image.hidden[last], without.hidden[last], atol=1e-3)
        assert not with_image.hidden.requires_grad


def test_text_before_the_image_has_not_seen_it(family: Family) -> None:
    form = PromptFormat.plain("Look here: {image} Question: {text} Short answer: {answer}\n")
    seen = family.backend.reader.read(DEMONSTRATIONS, prompt_format=form)
    blind = family.backend.reader.read(DEMONSTRATIONS, prompt_format=form, with_images=False)
    for with_image, without in zip(seen, blind, strict=True):
        before = with_image.image_position
        assert before > 0
        torch.testing.assert_close(with_image.hidden[:before], without.hidden[:before], atol=1e-5, rtol=1e-4)


def test_the_answer_starts_where_it_says(family: Family) -> None:
    tokenizer = family.backend.backbone.tokenizer
    for demonstration, reading in zip(
        DEMONSTRATIONS, family.backend.reader.read(DEMONSTRATIONS, prompt_format=family.form), strict=True
    ):
        answer = tokenizer.decode(reading.token_ids[reading.answer_start :], skip_special_tokens=True)
        assert answer.strip() == demonstration.answer
        before = tokenizer.decode(reading.token_ids[: reading.answer_start], skip_special_tokens=True)
        assert demonstration.text in before


def test_the_pieces_give_the_templates_own_conversation(family: Family) -> None:
    if family.form.kind == "plain":
        pytest.skip("no chat template")
    shots = [("Is {{ this }} a\nquestion?", "1 < 2"), ("", "Yes: \"quoted\", and 'more'."), ("Ünïcode 猫?", "Да")]
    messages = []
    for text, answer in [*shots, ("And now?", "")]:
        content = [{"type": "image"}, {"type": "text", "text": text}]
        messages.append({"role": "user", "content": content if text else content[:1]})
        messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    whole = family.rendered(messages[:-1])
    assert family.backend.backbone.prompts(family.form).whole(shots, "And now?") == whole


def test_a_system_text_stands_before_the_demonstrations(family: Family) -> None:
    system = "Answer with one word."
    form = family.form.model_copy(update={"system": system})
    prompts = family.backend.backbone.prompts(form)
    assert system in prompts.prefix
    assert system not in prompts.demonstration("What?", "This.").text
    plain = family.backend.reader.read(DEMONSTRATIONS[:1], prompt_format=family.form)[0]
    told = family.backend.reader.read(DEMONSTRATIONS[:1], prompt_format=form)[0]
    assert abs(len(told) - len(plain)) <= 1  # at most a blank at the seam
    texts = family.backend.reader.text_only(DEMONSTRATIONS[:1], prompt_format=form)
    (answer,) = family.backend.injector.generate(QUERIES[:1], [texts], prompt_format=form, max_new_tokens=2)
    assert answer.prompt_tokens > 0


def test_text_that_holds_an_image_token_is_refused(family: Family) -> None:
    backend = family.backend
    token = backend.backbone.tokenizer.convert_ids_to_tokens(min(backend.backbone.image_ids))
    for text in (backend.backbone.placeholder, token):
        with pytest.raises(FormatError) as caught:
            backend.reader.read([Demonstration(picture(8, 8, 0), f"a {text} b", "c")], prompt_format=family.form)
        assert text in str(caught.value) or token in str(caught.value)


def test_text_that_holds_the_slot_is_refused(family: Family) -> None:
    backend = family.backend
    token = backend.backbone.tokenizer.convert_ids_to_tokens(backend.slot)
    if token is None:
        assert backend.slot > max(backend.backbone.tokenizer.get_vocab().values())  # no text reaches a spare row
        return
    text = "\0" if token in ("<0x00>", "Ā") else token
    with pytest.raises(FormatError, match="placeholder"):
        backend.reader.text_only([Demonstration(picture(8, 8, 0), "a", f"b {text}")], prompt_format=family.form)


def test_a_plain_format_reads_and_answers(family: Family) -> None:
    form = PromptFormat.plain("Look: {image} Question: {text} Short answer: {answer}\n", system="A game.\n")
    readings = family.backend.reader.read(DEMONSTRATIONS, prompt_format=form)
    texts = family.backend.reader.text_only(DEMONSTRATIONS, prompt_format=form)
    assert [len(reading) for reading in readings] == [len(text) for text in texts]
    first = family.variant in IMAGE_FIRST
    assert all((reading.image_position == 0) == first for reading in readings)
    (answer,) = family.backend.injector.generate(QUERIES[:1], [texts], prompt_format=form, max_new_tokens=3)
    assert "\n" not in answer.text
