"""The attention that a backend reads is the plain model's, and every position is counted as what it holds."""

from itertools import groupby
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText

from aim_backends.hf import TransformersBackend
from aim_backends.hf.attention import eager_attention
from aim_backends.llava import LlavaBackend
from aim_sdk import AttentionMap, PromptFormat
from aim_sdk.backend import Interleaves, ShowsAttention, capability, find
from aim_sdk.errors import CapabilityError, ContextLengthError, FormatError, InputError
from tests.conformance.families import DEMONSTRATIONS, QUERIES, Family

ANSWER = "It is a red fox."
DEMOS = DEMONSTRATIONS[:2]


def read(backend: TransformersBackend, answer: str = ANSWER, form: PromptFormat | None = None) -> AttentionMap:
    return backend.attention(QUERIES[0], DEMOS, answer, prompt_format=form or backend.default_format)


def implementations(model: Any) -> list[str]:
    return [part.config._attn_implementation for part in model.modules() if hasattr(part, "config")]


def plain_attention(family: Family) -> tuple[list[Tensor], int]:
    """The plain model's own ``output_attentions`` on prompt and answer as one string, and the prompt's length."""
    backend = family.backend
    prompts = backend.backbone.prompts(family.form)
    prepared = backend.injector.prepare([QUERIES[0]], [DEMOS], prompt_format=family.form)
    answer = prompts.answer(QUERIES[0].text, ANSWER)[0]
    images = [[item.image for item in (*DEMOS, QUERIES[0])]]
    inputs = backend.backbone.process([prepared.texts[0] + answer], images, padding_side="left")
    plain = AutoModelForImageTextToText.from_pretrained(family.folder, attn_implementation="eager").eval()
    with torch.no_grad():
        return list(plain(**inputs, output_attentions=True).attentions), prepared.lengths[0]


def test_it_is_the_plain_models_attention(family: Family) -> None:
    if family.variant in ("idefics", "mllama"):
        with pytest.raises(CapabilityError, match="cross-attention"):
            capability(family.backend, ShowsAttention)
        return
    if find(family.backend, Interleaves) is None:
        with pytest.raises(FormatError, match="one image per prompt"):
            read(family.backend)
        return
    before = implementations(family.backend.model)
    found = read(family.backend)
    assert implementations(family.backend.model) == before
    expected, start = plain_attention(family)
    assert len(found.layers) == len(expected)
    text = family.plain.config.get_text_config()
    kinds = getattr(text, "layer_types", None) or ["full_attention"] * text.num_hidden_layers
    others = ("linear_attention", "conv", "moe", "mlp")
    assert found.layers == tuple(layer for layer, kind in enumerate(kinds) if kind not in others)
    for weights, layer in zip(found.weights, expected, strict=True):
        rows = layer[0, :, start - 1 : start + found.answer_tokens - 1]
        positions = len(found.kinds)
        mean = rows.mean((0, 1))[:positions]
        torch.testing.assert_close(weights, mean / mean.sum(), atol=1e-5, rtol=1e-4)  # without Inkling 2's sink
        assert not rows[..., positions:].any()
    torch.testing.assert_close(found.weights.sum(1), torch.ones(len(found.layers)))
    assert found.kinds.count("answer") == found.answer_tokens - 1
    # One image a demonstration and one in the query, each in one piece between text.
    assert [kind for kind, _ in groupby(found.kinds)].count("demonstration visual") == len(DEMOS)
    assert [kind for kind, _ in groupby(found.kinds)].count("query visual") == 1
    assert found.kinds[0] == "first"


def test_kinds_agree_with_a_hand_count(llava: TransformersBackend) -> None:
    """LLaVA-1.5 writes 16 visual tokens an image; the rest is what the tokenizer gives for each part alone."""
    form = PromptFormat.plain("{image}{text} Answer: {answer}\n", system="Look.\n")
    kinds = read(llava, form=form).kinds
    runs = [(kind, len(list(run))) for kind, run in groupby(kinds)]

    def behind_an_image(text: str) -> int:
        return len(llava.backbone.tokenizer.tokenize("<image>" + text)) - 1

    texts = [behind_an_image(f"{d.text} Answer: {d.answer}\n") for d in DEMOS]
    question = behind_an_image(f"{QUERIES[0].text} Answer:")
    assert runs == [
        ("first", 1),
        ("prefix", len(llava.backbone.tokenizer.tokenize("Look.\n"))),
        ("demonstration visual", 16),
        ("demonstration text", texts[0]),
        ("demonstration visual", 16),
        ("demonstration text", texts[1]),
        ("query visual", 16),
        ("query text", question),
        ("answer", behind_an_image(f"{QUERIES[0].text} Answer: {ANSWER}") - question - 1),
    ]


def test_uniform_attention_gives_each_kind_its_share_of_the_tokens(tiny: Any) -> None:
    backend = LlavaBackend.from_pretrained(str(tiny("llava-1.5")), device="cpu")
    for layer in backend.model.get_decoder().layers:
        nn.init.zeros_(layer.self_attn.q_proj.weight)
    found = read(backend, answer="red")
    rows = torch.ones(found.answer_tokens, len(found.kinds)).tril(len(found.kinds) - found.answer_tokens)
    expected = (rows / rows.sum(1, keepdim=True)).mean(0)
    torch.testing.assert_close(found.weights, expected.expand_as(found.weights))


def test_every_part_keeps_its_own_implementation_also_after_an_exception(tiny: Any) -> None:
    chosen = {"text_config": "eager", "vision_config": "sdpa"}
    backend = LlavaBackend.from_pretrained(str(tiny("llava-1.5")), device="cpu", attn_implementation=chosen)
    before = implementations(backend.model)
    assert {"eager", "sdpa"} <= set(before)
    read(backend)
    assert implementations(backend.model) == before

    def fail() -> None:
        with eager_attention(backend.model):
            assert set(implementations(backend.model)) == {"eager"}
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        fail()
    assert implementations(backend.model) == before


def test_a_failed_forward_leaves_no_hook(llava: TransformersBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    hooks = [len(part._forward_hooks) for part in llava.model.modules()]

    def fail(*args: object, **kwargs: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(llava.model.get_decoder().layers[1].mlp, "forward", fail)
        with pytest.raises(MemoryError):
            read(llava)
    assert [len(part._forward_hooks) for part in llava.model.modules()] == hooks
    assert set(implementations(llava.model)) == {"sdpa"}


def test_a_model_that_shows_no_weights_says_so(llava: TransformersBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llava.model, "set_attn_implementation", lambda implementation: None)
    with pytest.raises(CapabilityError, match="no attention weights"):
        read(llava)


def test_what_cannot_be_read_is_refused(llava: TransformersBackend) -> None:
    with pytest.raises(InputError, match="blank"):
        read(llava, answer=" ")
    with pytest.raises(FormatError, match="<image>"):
        read(llava, answer="an <image>")
    with pytest.raises(ContextLengthError):
        read(llava, answer="red fox " * 3000)


def test_reading_attention_leaves_the_answer_as_it_was(llava: TransformersBackend) -> None:
    form = llava.default_format
    before = llava.injector.score(QUERIES[0], DEMOS, [ANSWER], prompt_format=form)
    read(llava)
    assert llava.injector.score(QUERIES[0], DEMOS, [ANSWER], prompt_format=form) == before


def test_an_image_is_counted_whole_and_the_text_round_it_checked(llava: TransformersBackend) -> None:
    image, *_ = llava.backbone.image_ids
    one, two, three = [index for index in range(4) if index != image][:3]
    origins, tiles = llava.backbone.tokens.origins, [image, image, one, image]  # two rows with a line end between them
    assert origins([one, image, image, two, three], [one, *tiles, two, three]) == [0, 1, 1, 1, 1, 3, 4]
    assert origins([one, image, image], [one, *tiles]) == [0, 1, 1, 1, 1]
    for other in ([one, image, two], [two, image, two, three], [one, image, two, three, image], [one, two, three]):
        with pytest.raises(FormatError, match="differently"):
            origins([one, image, image, two, three], other)
