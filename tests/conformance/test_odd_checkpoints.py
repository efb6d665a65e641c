"""Checkpoints whose template, tokenizer or settings are not as usual: right answers, or an error that says what is."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor

from aim_backends.auto import AutoBackend
from aim_sdk import Demonstration, Query
from aim_sdk.errors import CorruptArtifactError, FormatError, InputError

UNUSABLE = r"generation_config\.json, or what was changed of these settings since, cannot be used"
IMAGE = Image.linear_gradient("L").resize((90, 60)).convert("RGB")


@pytest.fixture
def copy(tiny: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    return lambda variant: Path(shutil.copytree(tiny(variant), tmp_path / variant))


def load(folder: Path) -> AutoBackend:
    return AutoBackend.from_pretrained(str(folder), device="cpu")


def change(file: Path, **settings: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


def answered(backend: AutoBackend, **generation: Any) -> list[tuple[int, ...]]:
    """Answers to two queries without demonstrations and after fused tokens."""
    form = backend.default_format
    fused = backend.reader.text_only([Demonstration(IMAGE, "What is it?", "a fox")], prompt_format=form)
    return [
        answer.token_ids
        for context in ([], fused)
        for answer in backend.injector.generate(
            [Query(IMAGE, "What?"), Query(IMAGE, "Who is it?")],
            [context] * 2,
            prompt_format=form,
            max_new_tokens=4,
            **generation,
        )
    ]


def test_special_tokens_are_added_only_where_the_processor_adds_them(copy: Callable[[str], Path]) -> None:
    folder = copy("lfm2-vl")
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text().replace("{{ bos_token }}", ""))
    backend = load(folder)
    form = backend.default_format
    (answer,) = backend.injector.generate([Query(IMAGE, "What?")], [[]], prompt_format=form, max_new_tokens=1)
    content = [{"type": "image", "image": IMAGE}, {"type": "text", "text": "What?"}]
    native = AutoProcessor.from_pretrained(folder).apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True, return_dict=True
    )
    assert answer.prompt_tokens == len(native["input_ids"][0])


TURNS = "{% for message in messages %}<|im_start|>{{ message['role'] }}\nINSIDE<|im_end|>\n{% endfor %}"
PARTS = "{% for part in message['content'] %}{{ 'MARK' if part['type'] == 'image' else part['text'] }}{% endfor %}"


@pytest.mark.parametrize(
    ("inside", "why"),
    [
        ("{{ message['content'] + '' }}", "refuses the conversation .TypeError"),
        (PARTS.replace("MARK", ""), "writes '<IMG_CONTEXT>' 0 times for one image"),
        (PARTS.replace("MARK", "<image>"), "writes '<IMG_CONTEXT>' 0 times for one image"),
        (PARTS.replace("MARK", "<IMG_CONTEXT><IMG_CONTEXT>"), "writes '<IMG_CONTEXT>' 2 times for one image"),
    ],
    ids=["text only", "no image", "another mark", "twice"],
)
def test_a_template_that_cannot_serve_gives_the_plain_format(
    copy: Callable[[str], Path], inside: str, why: str
) -> None:
    folder = copy("internvl")
    (folder / "chat_template.jinja").write_text(TURNS.replace("INSIDE", inside))
    backend = load(folder)
    with pytest.warns(UserWarning, match=why):
        assert backend.default_format.kind == "plain"
    assert answered(backend)


def test_named_templates_without_a_default_give_the_plain_format(copy: Callable[[str], Path]) -> None:
    folder = copy("internvl")
    (folder / "additional_chat_templates").mkdir()
    (folder / "chat_template.jinja").rename(folder / "additional_chat_templates" / "tool_use.jinja")
    backend = load(folder)
    with pytest.warns(UserWarning, match="none of them are named"):
        assert backend.default_format.kind == "plain"
    assert answered(backend)


def test_a_token_without_an_embedding_is_refused_where_a_text_holds_it(copy: Callable[[str], Path]) -> None:
    folder = copy("internvl")
    backend = load(folder)
    added = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    tokens = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    change(folder / "tokenizer.json", added_tokens=[*tokens, {"id": backend.backbone.rows, "content": "lynx", **added}])
    backend = load(folder)
    assert answered(backend)
    shown = Demonstration(IMAGE, "What is it?", "a lynx")
    with pytest.raises(FormatError, match=r"'lynx', which this model .* or does not know"):
        backend.reader.read([shown], prompt_format=backend.default_format)


def test_an_image_token_that_does_not_fit_is_refused_at_load(copy: Callable[[str], Path]) -> None:
    folder = copy("internvl")
    change(folder / "config.json", image_token_id=3)
    with pytest.raises(CorruptArtifactError, match=r"names 3 as the image token, .*\n.*same checkpoint"):
        load(folder)


def test_stop_strings_of_a_checkpoint_are_used(copy: Callable[[str], Path]) -> None:
    folder = copy("internvl")
    change(folder / "generation_config.json", stop_strings=["a"])
    assert answered(load(folder))


def test_malformed_settings_are_refused_at_load(copy: Callable[[str], Path]) -> None:
    folder = copy("internvl")
    (folder / "generation_config.json").write_text("[1]")
    with pytest.raises(
        CorruptArtifactError,
        match=UNUSABLE,
    ):
        load(folder)


@pytest.mark.parametrize(
    "settings",
    [
        {"penalty_alpha": 0.6, "top_k": 4},
        {"dola_layers": "high"},
        {"prompt_lookup_num_tokens": 3},
        {"assistant_early_exit": 1},
        {"prefill_chunk_size": 4},
        {"token_healing": True},
        {"cache_implementation": "offloaded"},
        {"force_words_ids": [[3]]},
        {"use_mtp": True},
        {"num_beams": 4, "num_return_sequences": 4},
        {"do_sample": True, "temperature": 0.7},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_another_search_is_the_callers_choice_alone(copy: Callable[[str], Path], settings: dict[str, Any]) -> None:
    folder = copy("internvl")
    expected = answered(load(folder))
    change(folder / "generation_config.json", **settings)
    assert answered(load(folder)) == expected


@pytest.mark.parametrize(
    "settings",
    [{"eos_token_id": "2"}, {"repetition_penalty": -1}, {"suppress_tokens": "x"}, {"num_return_sequences": 3}],
    ids=lambda settings: next(iter(settings)),
)
def test_settings_that_cannot_be_used_are_named(copy: Callable[[str], Path], settings: dict[str, Any]) -> None:
    folder = copy("internvl")
    change(folder / "generation_config.json", **settings)
    why = UNUSABLE + r" .*\n.*correct that file"
    with pytest.raises(CorruptArtifactError, match=why):
        answered(load(folder))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"prefill_chunk_size": 4}, "'prefill_chunk_size' changes how a prompt is run: fused tokens would be lost"),
        ({"token_healing": True}, "'token_healing' changes how a prompt is run: fused tokens would be lost"),
        ({"repetition_penalty": -1}, "option repetition_penalty=-1: .*strictly positive"),
        ({"prompt_lookup_num_tokens": 2, "seed": 1}, "option prompt_lookup_num_tokens=2: .*batch_size = 1"),
        ({"penalty_alpha": 0.6, "top_k": 4}, "options penalty_alpha=0.6, top_k=4: Contrastive Search requires"),
        ({"temprature": 1.0}, "unknown to this backbone: .*temprature"),
        ({"generation_config": None}, "pass its settings as options instead"),
        ({"num_beams": "x"}, r"num_beams: Input should be a valid integer \(got 'x'\)"),
        ({"do_sample": "no"}, r"do_sample: Input should be a valid boolean \(got 'no'\)"),
        ({"seed": 2**70}, "seed: Input should be less than"),
        ({"eos_token_id": [[1]]}, "eos_token_id.0: Input should be a valid integer"),
        ({"logits_processor": 3}, "logits_processor: Input should be a valid list"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_options_that_cannot_be_used_are_named(tiny: Callable[[str], Path], options: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError, match=why):
        answered(load(tiny("internvl")), **options)


def test_numbers_of_numpy_and_torch_are_options(tiny: Callable[[str], Path]) -> None:
    backend = load(tiny("internvl"))
    end = answered(backend)[0][1]
    assert answered(backend, num_beams=np.int64(2)) == answered(backend, num_beams=2)
    for given in (end, (end,), np.int64(end), torch.tensor([end])):
        form = backend.default_format
        (answer,) = backend.injector.generate(
            [Query(IMAGE, "What?")], [[]], prompt_format=form, max_new_tokens=4, eos_token_id=given
        )
        assert (answer.token_ids[-1], answer.ended) == (end, True)


@pytest.mark.parametrize(
    ("part", "settings"),
    [
        ("image_processor", {"crop_to_patches": False, "size": {"height": 48, "width": 48}}),
        ("", {"image_seq_length": 3}),
    ],
    ids=["another size", "another number of tokens"],
)
def test_a_processor_of_another_checkpoint_is_named(
    copy: Callable[[str], Path], part: str, settings: dict[str, Any]
) -> None:
    folder = copy("internvl")
    file = folder / "processor_config.json"
    change(file, **{part: json.loads(file.read_text())[part] | settings} if part else settings)
    backend = load(folder)
    with pytest.raises(CorruptArtifactError, match=r"cannot take what the processor makes of any image .*\n.*same"):
        answered(backend)
