"""The GPU script: real sizes as they are, and every part on the tests' sizes; resumed, and without room."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from aim_sdk.errors import ContextLengthError
from benchmarks.speed.gpu import bench, parts, run
from benchmarks.speed.gpu.__main__ import main
from benchmarks.speed.gpu.bench import Bench
from benchmarks.speed.gpu.build import build
from benchmarks.speed.gpu.record import Record
from benchmarks.speed.gpu.shapes import SHAPES
from benchmarks.speed.gpu.table import lines
from benchmarks.speed.measure import RESULTS

PARAMETERS = {"llava-1.5-7b": 7.063, "llava-next-7b": 7.567, "qwen2.5-vl-7b": 8.292, "idefics2-8b": 8.403}
"""In billions, of the checkpoints."""
VISUAL = {"llava-1.5-7b": 576, "llava-next-7b": 2340, "qwen2.5-vl-7b": 391, "idefics2-8b": 64}
SMALL = ("--small", "--device", "cpu")
QUICK = ("latency, k=0", "kv bytes")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of the parts, with eight demonstrations."""
    monkeypatch.setattr(bench, "SHOTS", (0, 8))
    monkeypatch.setattr(run, "PARTS", {name: parts.PARTS[name] for name in QUICK})


def numbers(found: Any) -> Iterator[float]:
    if isinstance(found, dict | list):
        for item in found.values() if isinstance(found, dict) else found:
            yield from numbers(item)
    elif isinstance(found, int | float):
        yield found


def committed() -> set[str]:
    return {path.name for path in RESULTS.iterdir()}


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_has_the_checkpoints_sizes(name: str) -> None:
    backend = build(SHAPES[name], torch.device("meta"), small=False)
    model, backbone = backend.model, backend.backbone
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e9, 3) == PARAMETERS[name]
    assert all(tensor.device.type == "meta" for tensor in (*model.parameters(), *model.buffers()))
    assert model.dtype == torch.bfloat16
    ids = backbone.processor(text=backbone.placeholder, images=[[Image.new("RGB", (640, 480))]])["input_ids"]
    assert ids[0].count(model.config.image_token_id) == VISUAL[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
def test_every_part_of_a_small_shape(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, path = committed(), tmp_path / "found.json"
    assert main([*SMALL, "--shape", name, "--output", str(path)]) == 0
    found = json.loads(path.read_text())
    assert found["small"]
    assert found["device"] == "cpu"
    assert found["versions"]["transformers"]
    shape = found["shapes"][name]
    assert list(shape["parts"]) == list(parts.PARTS)
    assert all(math.isfinite(number) for number in numbers(shape))
    assert '"left_out"' not in json.dumps(shape)
    for k in (1, 4, 16, 64):
        ways = [cell["way"] for cell in shape["parts"][f"latency, k={k}"]["cells"]]
        assert ways == ["zero-shot", "AIM", "AIM, reused", "interleaved", "interleaved, reused", "text-only"]
        cells = {cell["way"]: cell for cell in shape["parts"][f"latency, k={k}"]["cells"]}
        demonstration = shape["positions_per_demonstration"]
        zero = cells["zero-shot"]["prompt_tokens"]
        for way, cell in cells.items():
            expected = 0 if way == "zero-shot" else demonstration["interleaved" if "interleaved" in way else "AIM"]
            assert cell["prompt_tokens"] == zero + k * expected, way
    kv = shape["parts"]["kv bytes"]["per_demonstration"]
    assert kv["AIM"]["bytes"] * kv["interleaved"]["positions"] == kv["interleaved"]["bytes"] * kv["AIM"]["positions"]
    for part in ("reading", "training"):
        assert shape["parts"][part]["of_floor"]["median"] > 0
    assert committed() == before
    printed = [line for line in capsys.readouterr().out.splitlines() if line != str(path)]
    assert max(map(len, printed)) <= 80


@pytest.mark.parametrize(("name", "visual"), [("llava-1.5-7b", 16), ("idefics2-8b", 8)])
def test_keys_and_values_are_those_of_the_configuration(name: str, visual: int, quick: None, tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    assert main([*SMALL, "--shape", name, "--output", str(path)]) == 0
    shape = json.loads(path.read_text())["shapes"][name]
    kv = shape["parts"]["kv bytes"]["per_demonstration"]
    one = 2 * 2 * 2 * 8 * 4  # keys and values, layers, heads, width, bytes
    assert {kind: found["bytes"] for kind, found in kv.items()} == {
        kind: positions * one for kind, positions in shape["positions_per_demonstration"].items()
    }
    assert kv["interleaved"]["positions"] - kv["AIM"]["positions"] == visual


def test_a_second_call_measures_nothing_again(
    quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call = [*SMALL, "--shape", "idefics2-8b", "--output", str(path := tmp_path / "found.json")]
    assert main(call) == 0
    first, said = path.read_bytes(), capsys.readouterr()
    assert f"idefics2-8b, {QUICK[0]}: measured in" in said.err
    monkeypatch.setattr(run, "Bench", lambda *given, **named: pytest.fail("a model was drawn again"))
    assert main(call) == 0
    again = capsys.readouterr()
    assert path.read_bytes() == first
    assert again.out == said.out
    assert again.err == f"idefics2-8b: all 2 parts are in {path} already\n"


def test_what_does_not_fit_is_noted_and_the_rest_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(drawn: Bench) -> dict[str, Any]:
        raise RuntimeError("the run ended") from torch.OutOfMemoryError("CUDA out of memory.")

    def variant(drawn: Bench, way: str, k: int) -> Any:
        def too_long() -> int:
            raise ContextLengthError("the prompt takes 9,999 tokens, but 4,096 fit.\nNext: fewer.")

        return too_long if way == "interleaved" else usual(drawn, way, k)

    usual, path = Bench.variant, tmp_path / "found.json"
    monkeypatch.setattr(bench, "SHOTS", (0, 8))
    monkeypatch.setattr(Bench, "variant", variant)
    monkeypatch.setattr(
        run,
        "PARTS",
        {"reading": full, "latency, k=4": parts.PARTS["latency, k=4"], "kv bytes": parts.PARTS["kv bytes"]},
    )
    assert main([*SMALL, "--shape", "llava-1.5-7b", "--output", str(path)]) == 0
    found = json.loads(path.read_text())["shapes"]["llava-1.5-7b"]["parts"]
    assert found["reading"]["left_out"] == "out of memory"
    cells = {cell["way"]: cell for cell in found["latency, k=4"]["cells"]}
    assert cells.pop("interleaved")["left_out"] == "the prompt takes 9,999 tokens, but 4,096 fit."
    assert all(cell["of_zero_shot"]["median"] > 0 for cell in cells.values())
    assert found["kv bytes"]["interleaved_of_aim"] > 1
    said = capsys.readouterr()
    assert "llava-1.5-7b, reading: measured in 0:00:00: out of memory" in said.err
    assert "  - interleaved, k=4: the prompt takes 9,999 tokens, but 4,096 fit." in said.out
    assert "  - reading: out of memory" in said.out


def test_a_shape_that_cannot_be_drawn_is_noted(
    quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def drawn(shape: Any, *given: Any, **named: Any) -> Bench:
        if shape.tiny == "llava-1.5":
            raise torch.OutOfMemoryError
        return Bench(shape, *given, **named)

    monkeypatch.setattr(run, "Bench", drawn)
    call = [*SMALL, "--shape", "llava-1.5-7b", "idefics2-8b", "--output", str(path := tmp_path / "found.json")]
    assert main(call) == 0
    shapes = json.loads(path.read_text())["shapes"]
    assert shapes["llava-1.5-7b"] == {"left_out": "out of memory", "parts": {}}
    assert list(shapes["idefics2-8b"]["parts"]) == list(QUICK)
    assert "llava-1.5-7b: out of memory" in capsys.readouterr().out


@pytest.mark.slow
def test_a_killed_run_keeps_its_parts(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    command = [sys.executable, "-m", "benchmarks.speed.gpu", *SMALL, "--shape", "idefics2-8b", "--output", str(path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while "latency, k=1" not in (path.read_text() if path.exists() else ""):
            assert process.poll() is None
            time.sleep(0.1)
        os.kill(process.pid, signal.SIGKILL)
    kept = json.loads(path.read_text())["shapes"]["idefics2-8b"]["parts"]
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    whole = json.loads(path.read_text())["shapes"]["idefics2-8b"]["parts"]
    assert list(whole) == list(parts.PARTS)
    assert {name: whole[name] for name in kept} == kept
    assert not any(f"{name}: measured" in again.stderr for name in kept)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--shape", "llava-7b"], "no shape named 'llava-7b'. Did you mean 'llava-1.5-7b' or 'llava-next-7b'?"),
        ([], "there is no GPU"),
        (["--device", "cpu"], "7B parameters are measured on a GPU"),
    ],
)
def test_what_cannot_run_says_what_can(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    before = committed()
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {said}") or said in error
    if "GPU" in said:
        assert "\nNext: python -m benchmarks.speed.gpu --small --device cpu" in error
    assert committed() == before


@pytest.mark.parametrize("text", ['{"shapes": {}, "device": "NVIDIA H100", "small": false}', "[]", '{"cut'])
def test_another_cards_file_is_kept(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (path := tmp_path / "found.json").write_text(text)
    assert main([*SMALL, "--output", str(path)]) == 1
    assert "Next: name another file (--output FILE), or delete this one." in capsys.readouterr().err
    assert path.read_text() == text


def test_lines_fit_a_terminal_of_80_columns(tmp_path: Path) -> None:
    record = Record(tmp_path / "found.json", device="NVIDIA H100 80GB HBM3", small=False)
    ratios = {"median": 123.456, "quartile_low": 100.0, "quartile_high": 200.0}
    cells = [{"way": "interleaved, reused", "shots": 64, "median_ms": 12345.6, "of_zero_shot": ratios}]
    record.describe("qwen2.5-vl-7b", {"parameters": 8_292_166_656, "dtype": "bfloat16"})
    record.add("qwen2.5-vl-7b", "latency, k=64", {"cells": cells})
    record.add("qwen2.5-vl-7b", "training", {"of_floor": ratios, "peak_bytes": 2**40})
    said = list(lines("qwen2.5-vl-7b", record.shapes["qwen2.5-vl-7b"]))
    assert max(map(len, said)) <= 80
    assert any(line.startswith("interleaved, reused") and line.endswith("12346 123.46x") for line in said)
