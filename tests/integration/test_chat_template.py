"""Where a checkpoint keeps its chat template."""

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from aim_sdk import get_backend

TEXT_ONLY = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}"
FAILS = "{{ messages[0]['content'] + 'x' }}"


def moved(folder: Path, to: Path, template: str | None = None) -> Path:
    """A copy of a checkpoint whose template stands in tokenizer_config.json alone."""
    shutil.copytree(folder, to)
    found = None
    for file in (to / "chat_template.jinja", to / "chat_template.json"):
        if file.exists():
            found = file.read_text() if file.suffix == ".jinja" else json.loads(file.read_text())["chat_template"]
            file.unlink()
    for name in ("processor_config.json", "tokenizer_config.json"):
        if (to / name).exists():
            config = json.loads((to / name).read_text())
            found = config.pop("chat_template", None) or found
            (to / name).write_text(json.dumps(config))
    config = json.loads((to / "tokenizer_config.json").read_text())
    config["chat_template"] = template or found
    (to / "tokenizer_config.json").write_text(json.dumps(config))
    return to


@pytest.mark.parametrize(("backend", "variant"), [("qwen-vl", "qwen2.5-vl"), ("llava", "llava-onevision")])
def test_a_template_of_the_tokenizer_is_used(
    tiny: Callable[[str], Path], tmp_path: Path, backend: str, variant: str
) -> None:
    load = get_backend(backend).from_pretrained
    whole = load(str(tiny(variant)), device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = load(str(moved(tiny(variant), tmp_path / variant)), device="cpu")
    assert made.default_format == whole.default_format
    assert made.default_format.kind == "chat"
    ours, theirs = (b.prompts(b.default_format) for b in (made, whole))  # type: ignore[attr-defined]
    assert ours.whole([("What?", "a cat")], "Who?") == theirs.whole([("What?", "a cat")], "Who?")


@pytest.mark.parametrize("template", [TEXT_ONLY, FAILS, "{{ nonsense( }}"])
def test_one_without_a_place_for_images_is_said(tiny: Callable[[str], Path], tmp_path: Path, template: str) -> None:
    folder = moved(tiny("qwen2.5-vl"), tmp_path / "qwen", template)
    with pytest.warns(UserWarning, match=r"tokenizer_config\.json has no place for images"):
        made = get_backend("qwen-vl").from_pretrained(str(folder), device="cpu")
    assert made.default_format.kind == "plain"
