"""What a processor lacks: where a checkpoint keeps its chat template, and what old ones do not say."""

import ast
import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from aim_sdk import AIMPipeline, get_backend
from aim_sdk.errors import CorruptArtifactError, InputError

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
    ours, theirs = (b.backbone.prompts(b.default_format) for b in (made, whole))  # type: ignore[attr-defined]
    assert ours.whole([("What?", "a cat")], "Who?") == theirs.whole([("What?", "a cat")], "Who?")


@pytest.mark.parametrize("template", [TEXT_ONLY, FAILS, "{{ nonsense( }}"])
def test_one_without_a_place_for_images_is_said(tiny: Callable[[str], Path], tmp_path: Path, template: str) -> None:
    folder = moved(tiny("qwen2.5-vl"), tmp_path / "qwen", template)
    with pytest.warns(UserWarning, match=r"tokenizer_config\.json has no place for images"):
        made = get_backend("qwen-vl").from_pretrained(str(folder), device="cpu")
    assert made.default_format.kind == "plain"


def test_a_processor_that_cannot_count_names_the_option(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny("llava-1.5"), tmp_path / "old"))
    config = json.loads((folder / "processor_config.json").read_text())
    del config["patch_size"], config["vision_feature_select_strategy"]
    (folder / "processor_config.json").write_text(json.dumps(config))
    with pytest.raises(CorruptArtifactError, match=r"processor_options=\{'patch_size': 8, 'vision_feature") as caught:
        get_backend("llava").from_pretrained(str(folder), device="cpu")
    options = ast.literal_eval(str(caught.value).rpartition("processor_options=")[2].rstrip("."))
    made = get_backend("llava").from_pretrained(str(folder), device="cpu", processor_options=options)
    assert AIMPipeline(made)(Image.new("RGB", (30, 30)), "What?", mode="zero-shot", max_new_tokens=1) is not None


def test_an_unknown_option_is_named(tiny: Callable[[str], Path]) -> None:
    with pytest.raises(InputError, match=r"option 'dtpye' is unknown .* Did you mean 'dtype'"):
        get_backend("llava").from_pretrained(str(tiny("llava-1.5")), device="cpu", dtpye="float32")
