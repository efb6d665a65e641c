"""Answers, streams and scores are the plain model's; what a user asks for reaches `generate`."""

import dataclasses
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import StoppingCriteria

from aim_backends.auto import AutoBackend
from aim_backends.hf import TransformersBackend
from aim_backends.hf.decoding import Decoding
from aim_backends.hf.tap import lm_head
from aim_backends.idefics import IdeficsBackend
from aim_sdk import FusedTokens, PromptFormat, Query
from aim_sdk.backend import Interleaves, find
from aim_sdk.errors import ContextLengthError, FormatError, InputError
from tests.conformance.families import DEMONSTRATIONS, QUERIES, Family, picture

PLAIN = PromptFormat.plain("{image} Question: {text} Short answer: {answer}\n")


def test_a_stream_is_the_answer(family: Family) -> None:
    injector = family.backend.injector
    for form in (family.form, PLAIN):
        context = family.backend.reader.text_only(DEMONSTRATIONS[:2], prompt_format=form)
        (answer,) = injector.generate(QUERIES[:1], [context], prompt_format=form, max_new_tokens=12)
        pieces = injector.stream(QUERIES[0], context, prompt_format=form, max_new_tokens=12)
        assert "".join(pieces) == answer.text


def test_scores_are_those_of_the_full_forward(family: Family) -> None:
    backend, query = family.backend, QUERIES[0]
    choices = ["No", "Yes.", "It is a lynx, or a fox on the left."]
    for places in ([], [0, 1]):
        context = family.text_only(*places)
        found = backend.injector.score(query, context, choices, prompt_format=family.form)
        prepared = backend.injector.prepare([query], [context], prompt_format=family.form)
        inputs = family.true_inputs(prepared, [places])
        for choice, scores in zip(choices, found, strict=True):
            answer = backend.backbone.prompts(family.form).answer(query.text, choice)[0]
            ids = torch.tensor([backend.backbone.tokens.continuation(prepared.texts[0], answer)])
            expected = _full(family, inputs, ids)
            torch.testing.assert_close(torch.tensor(scores), expected, atol=1e-4, rtol=1e-5)


def _full(family: Family, inputs: dict[str, torch.Tensor], ids: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of ``ids`` after a prompt, in one forward of the plain model, its masks written by hand."""
    width, count = inputs["input_ids"].shape[1], ids.shape[1]
    inputs = dict(inputs, input_ids=torch.cat([inputs["input_ids"], ids], 1))
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    for name in ("token_type_ids", "mm_token_type_ids", "moe_mm_token_type_ids", "image_embeds_position_mask"):
        if name in inputs:
            value = int(family.variant == "paligemma" and name == "token_type_ids")  # causal, unlike its prompt
            inputs[name] = torch.nn.functional.pad(inputs[name], (0, count), value=value)
    for name in ("image_attention_mask", "cross_attention_mask"):  # what stands after the image sees it
        if name in inputs:
            inputs[name] = torch.cat([inputs[name], *[inputs[name][:, -1:]] * count], 1)
    with torch.no_grad():
        logits = family.plain(**inputs).logits[0, width - 1 : -1]
    return logits.float().log_softmax(-1).gather(1, ids[0][:, None])[:, 0]


def test_scores_do_not_need_the_cache(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    args = (QUERIES[0], family.text_only(0), ["No", "It is a fox."])
    cached = family.backend.injector.score(*args, prompt_format=family.form)
    facts = dataclasses.replace(family.backend.backbone.family, continues_cache=False)
    monkeypatch.setattr(family.backend.backbone, "family", facts)
    whole = family.backend.injector.score(*args, prompt_format=family.form)
    for first, second in zip(cached, whole, strict=True):
        assert first == pytest.approx(second, abs=1e-4)


def test_the_slot_is_never_generated(family: Family) -> None:
    backend = family.backend
    if backend.slot >= len(backend.vocabulary.outputs):
        return  # there is no such output

    def wish(module: object, args: object, output: torch.Tensor) -> torch.Tensor:
        output[..., backend.slot] = 1e4
        return output

    head = lm_head(backend.model)
    wished = head.register_forward_hook(wish)
    try:
        (answer,) = backend.injector.generate(
            QUERIES[:1], [family.text_only(0)], prompt_format=family.form, max_new_tokens=3, suppress_tokens=[5]
        )
    finally:
        wished.remove()
    assert backend.slot not in answer.token_ids
    assert 5 not in answer.token_ids


def test_interleaved_demonstrations_are_the_processors_own_prompt(family: Family) -> None:
    query, shots = QUERIES[0], DEMONSTRATIONS[:2]
    backend = family.backend
    inputs = family.native(query, shots)
    expected = family.plain.generate(**inputs, do_sample=False, max_new_tokens=5)[0, inputs["input_ids"].shape[1] :]
    (found,) = backend.injector.generate([query], [shots], prompt_format=family.form, max_new_tokens=5)
    assert list(found.token_ids) == expected.tolist()[: len(found.token_ids)]
    assert found.prompt_tokens == inputs["input_ids"].shape[1]


def test_a_batch_may_mix_fused_interleaved_and_no_demonstrations(family: Family) -> None:
    contexts = [family.text_only(0), DEMONSTRATIONS[:2], []]
    together = family.backend.injector.prepare(QUERIES, contexts, prompt_format=family.form).lengths
    alone = [
        family.backend.injector.prepare([query], [context], prompt_format=family.form).lengths[0]
        for query, context in zip(QUERIES, contexts, strict=True)
    ]
    assert list(together) == alone
    answers = family.backend.injector.generate(QUERIES, contexts, prompt_format=family.form, max_new_tokens=2)
    assert [answer.prompt_tokens for answer in answers] == list(together)


class _Slow(StoppingCriteria):
    """Notes every step, and lets the reader keep up."""

    def __init__(self) -> None:
        self.steps = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: object) -> torch.Tensor:
        self.steps += 1
        time.sleep(0.01)
        return torch.zeros(len(input_ids), dtype=torch.bool)


def test_leaving_a_stream_stops_its_thread(llava: TransformersBackend) -> None:
    slow, before = _Slow(), threading.active_count()
    pieces = llava.injector.stream(
        QUERIES[0],
        [],
        prompt_format=llava.default_format,
        max_new_tokens=500,
        min_new_tokens=500,
        stopping_criteria=[slow],
    )
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
    assert slow.steps < 100


def test_a_character_may_go_on_after_a_hidden_token(llava: TransformersBackend) -> None:
    tokenizer = llava.backbone.tokenizer
    half, end = tokenizer.convert_tokens_to_ids(["<0xCF>", "</s>"])
    plain = tokenizer("cat", add_special_tokens=False)["input_ids"]
    decoding = Decoding(llava.backbone, 0, None, (), None, {})
    assert decoding.settled(plain)
    assert decoding.settled([*plain, end])
    assert not decoding.settled([*plain, half])
    assert not decoding.settled([*plain, half, end])


def test_an_exception_in_the_stream_reaches_its_reader(llava: TransformersBackend) -> None:
    class Broken(StoppingCriteria):
        def __call__(self, *_: object, **__: object) -> torch.Tensor:
            raise ZeroDivisionError("on purpose")

    pieces = llava.injector.stream(
        QUERIES[0], [], prompt_format=llava.default_format, max_new_tokens=4, stopping_criteria=[Broken()]
    )
    with pytest.raises(ZeroDivisionError, match="on purpose"):
        list(pieces)
    assert list(llava.injector.stream(QUERIES[0], [], prompt_format=llava.default_format, max_new_tokens=2))


def test_a_stop_string_ends_each_row_of_a_batch(llava: TransformersBackend) -> None:
    contexts = [llava.reader.text_only(DEMONSTRATIONS[:k], prompt_format=PLAIN) for k in (0, 1, 2)]
    free = llava.injector.generate(QUERIES, contexts, prompt_format=PLAIN, max_new_tokens=10)
    stop = llava.backbone.tokenizer.decode(free[0].token_ids[2])
    form = PromptFormat.plain("{image} Question: {text} Short answer: {answer}" + stop)
    together = llava.injector.generate(QUERIES, contexts, prompt_format=form, max_new_tokens=10)
    for row, (query, context) in enumerate(zip(QUERIES, contexts, strict=True)):
        (alone,) = llava.injector.generate([query], [context], prompt_format=form, max_new_tokens=10)
        assert alone == together[row]
        assert stop not in alone.text
    assert len(together[0].token_ids) <= 3


def test_a_special_token_that_begins_the_stop_string_ends_the_answer(tiny: Callable[[str], Path]) -> None:
    backend = AutoBackend.from_pretrained(str(tiny("got-ocr2")), device="cpu")
    form, end = backend.default_format, backend.backbone.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert end != backend.model.generation_config.eos_token_id

    def wish(module: object, args: object, output: torch.Tensor) -> torch.Tensor:
        output[..., end] = 1e4
        return output

    backend.model.get_output_embeddings().register_forward_hook(wish)
    options = {"prompt_format": form, "max_new_tokens": 5, "begin_suppress_tokens": [end]}
    (answer,) = backend.injector.generate(QUERIES[:1], [[]], **options)
    assert answer.token_ids[1:] == (end,)
    assert "".join(backend.injector.stream(QUERIES[0], [], **options)) == answer.text


def test_generation_options_pass_through(llava: TransformersBackend) -> None:
    form = llava.default_format
    twice = llava.injector.generate(
        QUERIES[:2], [[], []], prompt_format=form, max_new_tokens=3, num_beams=2, num_return_sequences=2
    )
    assert len(twice) == 4
    torch.manual_seed(0)
    sampled = {
        llava.injector.generate(QUERIES[:1], [[]], prompt_format=form, max_new_tokens=6, do_sample=True)[0].token_ids
        for _ in range(4)
    }
    assert len(sampled) > 1
    with pytest.raises(InputError, match="tempratur"):
        llava.injector.generate(QUERIES[:1], [[]], prompt_format=form, max_new_tokens=2, tempratur=1.0)
    with pytest.raises(InputError, match="inputs_embeds"):
        llava.injector.generate(QUERIES[:1], [[]], prompt_format=form, max_new_tokens=2, inputs_embeds=None)
    with pytest.raises(InputError, match="beams"):
        llava.injector.stream(QUERIES[0], [], prompt_format=form, max_new_tokens=2, num_beams=2)


def test_contexts_that_cannot_be_used(llava: TransformersBackend) -> None:
    form = llava.default_format
    fused = llava.reader.text_only(DEMONSTRATIONS[:1], prompt_format=form)
    with pytest.raises(InputError, match="Demonstration, FusedTokens"):
        llava.injector.prepare(QUERIES[:1], [[*fused, DEMONSTRATIONS[0]]], prompt_format=form)  # type: ignore[list-item]
    with pytest.raises(InputError, match=r"\(4, 7\)"):
        llava.injector.prepare(QUERIES[:1], [[FusedTokens(torch.zeros(4, 7))]], prompt_format=form)
    (known,) = fused
    image = min(llava.backbone.image_ids)
    for ids in ([10**6] * len(known), [-1] * len(known), [image] * len(known), [5]):
        strange = FusedTokens(known.embeddings, token_ids=torch.tensor(ids))
        with pytest.raises(InputError, match=r"token_ids that are not text.*\n.*read their demonstrations again"):
            llava.injector.prepare(QUERIES[:1], [[strange]], prompt_format=form)
    with pytest.raises(InputError, match="one context per query"):
        llava.injector.prepare(QUERIES[:2], [fused], prompt_format=form)
    with pytest.raises(InputError, match="blank"):
        llava.injector.score(QUERIES[0], [], [" "], prompt_format=form)


def test_a_prompt_beyond_the_context_says_how_much_fits(llava: TransformersBackend) -> None:
    form = llava.default_format
    limit = llava.backbone.context_length
    assert limit is not None
    fused = [FusedTokens(torch.zeros(100, llava.backbone.embedding_size))] * 60
    with pytest.raises(ContextLengthError) as caught:
        llava.injector.generate(QUERIES[:1], [fused], prompt_format=form, max_new_tokens=8)
    message = str(caught.value)
    assert "6,000 of them are 60 demonstrations" in message
    fits = int(message.split("shots=")[1].split(",")[0])
    for shots, fit in ((fits, True), (fits + 1, False)):
        total = llava.injector.prepare(QUERIES[:1], [fused[:1]], prompt_format=form).lengths[0] + 100 * (shots - 1) + 8
        assert (total <= limit) == fit
    with pytest.raises(ContextLengthError, match="max_new_tokens"):
        llava.injector.generate(QUERIES[:1], [[]], prompt_format=form, max_new_tokens=limit)


def test_a_chat_format_needs_a_chat_template(tiny: Callable[[str], Path]) -> None:
    backend = IdeficsBackend.from_pretrained(str(tiny("idefics")), device="cpu")
    with pytest.raises(FormatError, match="no chat template"):
        backend.reader.read(DEMONSTRATIONS[:1], prompt_format=PromptFormat.chat())


def test_a_text_that_the_processor_would_download_is_refused(tiny: Callable[[str], Path]) -> None:
    backend = IdeficsBackend.from_pretrained(str(tiny("idefics")), device="cpu")
    form = PromptFormat.plain("{image}{text}\nA:{answer}\n")
    with pytest.raises(FormatError, match="address"):
        backend.injector.prepare([Query(picture(8, 8, 0), "https://example.com/a.png")], [[]], prompt_format=form)


def test_a_family_of_one_image_says_so(tiny: Callable[[str], Path]) -> None:
    backend = AutoBackend.from_pretrained(str(tiny("blip-2")), device="cpu")
    assert find(backend, Interleaves) is None
    with pytest.raises(FormatError, match=r"'blip-2'.*one image per prompt"):
        backend.injector.prepare(QUERIES[:1], [DEMONSTRATIONS[:1]], prompt_format=backend.default_format)
