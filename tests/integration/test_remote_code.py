"""Code that a checkpoint brings runs if the caller said so, and never because standard input says "y"."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from aim_sdk import AIMPipeline
from aim_sdk.errors import AIMError, CorruptArtifactError, InputError, UnsupportedModelError

CODE = """
from pathlib import Path
Path({marker!r}).touch()
from transformers import CLIPImageProcessor, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor, LlamaTokenizer
class C(LlavaConfig): model_type = "stranger"
class M(LlavaForConditionalGeneration): config_class = C
class P(LlavaProcessor): pass
class T(LlamaTokenizer): pass
class I(CLIPImageProcessor): pass
def generate(model, **options): pass
"""
MAPPED = {
    "AutoConfig": "code.C",
    "AutoModelForImageTextToText": "code.M",
    "AutoModel": "code.M",
    "AutoProcessor": "code.P",
    "AutoTokenizer": ["code.T", "code.T"],
    "AutoImageProcessor": "code.I",
}


def change(path: Path, *inside: str, **fields: Any) -> None:
    content = json.loads(path.read_text()) if path.exists() else {}
    part = content
    for name in inside:
        part = part[name]
    part.update(fields)
    path.write_text(json.dumps(content))


def config(folder: Path) -> None:
    change(folder / "config.json", model_type="stranger", auto_map=MAPPED)


def processor(folder: Path) -> None:
    change(folder / "processor_config.json", processor_class="Stranger", auto_map=MAPPED)


def image_processor(folder: Path) -> None:
    change(folder / "processor_config.json", "image_processor", image_processor_type="Stranger", auto_map=MAPPED)


def image_processor_of_its_own(folder: Path) -> None:
    content = json.loads((folder / "processor_config.json").read_text())
    fields = content.pop("image_processor") | {"image_processor_type": "Stranger", "auto_map": MAPPED}
    (folder / "processor_config.json").write_text(json.dumps(content))
    change(folder / "preprocessor_config.json", **fields)


def tokenizer(folder: Path) -> None:
    change(folder / "tokenizer_config.json", tokenizer_class="Stranger", auto_map=MAPPED)


def known_type(folder: Path) -> None:
    change(folder / "config.json", auto_map=MAPPED)


def parts(folder: Path) -> None:
    change(folder / "config.json", "text_config", auto_map=MAPPED)
    change(folder / "config.json", "vision_config", auto_map=MAPPED)


def generation(folder: Path) -> None:
    (folder / "custom_generate").mkdir()
    shutil.copy(folder / "code.py", folder / "custom_generate" / "generate.py")


NEEDED = [config, processor, image_processor, image_processor_of_its_own]
"""transformers asks."""
NOT_NEEDED = [tokenizer, known_type, parts, generation]
"""transformers has classes of its own, and takes them."""


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "it-ran"


@pytest.fixture
def model(tiny: Callable[[str], Path], tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with Python code, where standard input says yes to all."""
    monkeypatch.setattr("builtins.input", lambda _="": "y")
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    folder = Path(shutil.copytree(tiny("llava-1.5"), tmp_path / "model"))
    (folder / "code.py").write_text(CODE.format(marker=str(marker)))
    return folder


def load(model: Path, **options: Any) -> AIMPipeline:
    return AIMPipeline.from_pretrained("auto", model=model, projector="carrier", device="cpu", **options)


@pytest.mark.parametrize("case", NEEDED)
def test_code_is_not_run_unasked(case: Callable[[Path], None], model: Path, marker: Path) -> None:
    case(model)
    for options in ({}, {"trust_remote_code": False}):
        with pytest.raises(UnsupportedModelError, match=r"was not run\.\nNext: .*trust_remote_code=True"):
            load(model, **options)
    assert not marker.exists()
    with suppress(AIMError):  # what strange code makes of it
        load(model, trust_remote_code=True)
    assert marker.exists()


@pytest.mark.parametrize("case", NOT_NEEDED)
def test_code_that_is_not_needed_is_not_run(case: Callable[[Path], None], model: Path, marker: Path) -> None:
    case(model)
    load(model)
    assert not marker.exists()


@pytest.mark.parametrize("trusted", ["False", 1, None])
def test_trust_is_true_or_false(model: Path, trusted: Any) -> None:
    with pytest.raises(InputError, match="True or False"):
        load(model, trust_remote_code=trusted)


@pytest.mark.slow
def test_a_shell_that_says_yes_runs_nothing(model: Path, marker: Path, tmp_path: Path) -> None:
    processor(model)
    Image.new("RGB", (40, 40), "red").save(tmp_path / "a.png")
    (tmp_path / "q.jsonl").write_text('{"image": "a.png", "text": "What?"}\n')
    (tmp_path / "d.jsonl").write_text('{"image": "a.png", "text": "What?", "answer": "red"}\n')
    command = [sys.executable, "-m", "aim_sdk.cli", "answer", "--backend", "auto", "--model", str(model)]
    command += ["--projector", "carrier", "--device", "cpu", "--out", str(tmp_path / "out.jsonl")]
    command += ["--queries", str(tmp_path / "q.jsonl"), "--demos", str(tmp_path / "d.jsonl")]

    def run(*more: str) -> "subprocess.CompletedProcess[str]":
        environment = os.environ | {"HF_HOME": str(tmp_path / "hub")}
        return subprocess.run(
            [*command, *more], input="y\n" * 1000, capture_output=True, text=True, timeout=120, env=environment
        )

    refused = run()
    assert refused.returncode == 1
    assert "--trust-remote-code" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not marker.exists()
    run("--trust-remote-code")
    assert marker.exists()


class Boom:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def test_a_pickle_in_place_of_weights_is_not_run(model: Path, marker: Path) -> None:
    (model / "model.safetensors").unlink()
    torch.save({"weight": Boom(marker)}, model / "pytorch_model.bin")
    with pytest.raises(CorruptArtifactError, match="state dict"):
        load(model)
    assert not marker.exists()
