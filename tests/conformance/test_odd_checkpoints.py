"""Checkpoints whose template, tokenizer or settings are not as usual: right answers, or an error that says what is."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from transformers import AutoProcessor

from aim_backends.auto import AutoBackend
from aim_sdk import Demonstration, Query
from aim_sdk.errors import CorruptArtifactError, FormatError

IMAGE = Image.linear_gradient("L").resize((90, 60)).convert("RGB")


@pytest.fixture
def copy(tiny: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    return lambda variant: Path(shutil.copytree(tiny(variant), tmp_path / variant))


def load(folder: Path) -> AutoBackend:
    return AutoBackend.from_pretrained(str(folder), device="cpu")


def change(file: Path, **settings: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


def answered(backend: AutoBackend) -> tuple[int, ...]:
    form = backend.default_format
    (answer,) = backend.injector.generate([Query(IMAGE, "What?")], [[]], prompt_format=form, max_new_tokens=2)
    return answer.token_ids


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
    with pytest.raises(CorruptArtifactError, match=r"generation_config\.json does not fit"):
        load(folder)
