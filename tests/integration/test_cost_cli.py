"""`aim-icl cost`, and its line before `answer`."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import CalledCli


@pytest.fixture
def folder(tiny: Callable[[str], Path], tmp_path: Path) -> Path:
    """A checkpoint without weights."""
    found = tmp_path / "llava-next"
    shutil.copytree(tiny("llava-next"), found, ignore=shutil.ignore_patterns("*.safetensors"))
    return found


@pytest.fixture
def demos(tmp_path: Path) -> Path:
    rows = []
    for n, size in enumerate([(64, 64), (640, 480), (100, 700)]):
        Image.new("RGB", size).save(tmp_path / f"{n}.png")
        rows.append(json.dumps({"image": f"{n}.png", "text": "What? " * (n + 1), "answer": f"a cat {n}"}))
    (tmp_path / "demos.jsonl").write_text("\n".join(rows))
    return tmp_path / "demos.jsonl"


def test_a_table_of_80_columns_without_weights(
    call_cli: CalledCli, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = call_cli("cost", "--backend", "llava", "--model", str(folder), "--shots", "4", "16", "4000")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("mode "))
    table = lines[start : start + 8]
    assert max(map(len, table)) <= 80
    assert [line.split()[:2] for line in table[1:]] == [
        ["zero-shot", "0"],
        *(["aim", n] for n in ("4", "16", "4000")),
        *(["interleaved", n] for n in ("4", "16", "4000")),
    ]
    assert table[6].split()[-1] == "yes"
    assert table[7].rstrip().endswith("no: context")


def test_json_of_real_demonstrations(call_cli: CalledCli, folder: Path, demos: Path) -> None:
    arguments = ("cost", "--backend", "llava", "--model", str(folder), "--shots", "2,3", "--json")
    found = json.loads(call_cli(*arguments, "--demos", str(demos), "--modes", "aim,interleaved").stdout)
    assert [(row["mode"], row["shots"], row["images"]) for row in found["prompts"]] == [
        ("aim", 2, 1),
        ("aim", 3, 1),
        ("interleaved", 2, 3),
        ("interleaved", 3, 4),
    ]
    assert found["counted_on"] == f"the 3 demonstrations of {demos}"
    assert found["bank_bytes"] > found["bank_bytes_each"] > 0
    assert found["weights_loaded"] is False
    assumed = json.loads(call_cli(*arguments, "--image-size", "64x64", "--text", "a", "--answer", "b").stdout)
    larger = json.loads(call_cli(*arguments, "--image-size", "1920x1080", "--text", "a", "--answer", "b").stdout)
    assert assumed["prompts"][-1]["tokens"] != larger["prompts"][-1]["tokens"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--shots", "four"), "--shots 'four': expected whole numbers"),
        (("--shots", ","), "expected whole numbers"),
        (("--shots", "-4"), "expected whole numbers"),
        (("--shots", "1000000000000"), "at most 4,096"),
        (("--image-size", "1000000x1000000"), "at most 100,000,000 pixels"),
        (("--modes", "near"), "interleaved, zero-shot, no-image."),
        (("--modes", "aims"), "Did you mean 'aim'"),
        (("--image-size", "640"), "expected width and height"),
        (("--image-size", "999999x999999"), "image size 999999x999999"),
        (("--demos", "no.jsonl", "--bank", "no"), "not both"),
        (("--demos", "no.jsonl", "--answer", "a"), "--answer is for assumed demonstrations"),
        (("--answer", " "), "`answer` is blank"),
        (("--template", "{image}"), "prompt template"),
        (("--dtype", "int8"), "dtype"),
        (("--device", "cuda:99"), "cannot be used here"),
        (("--text", "an <image>"), "<image>"),
    ],
)
def test_mistakes_are_named(call_cli: CalledCli, folder: Path, arguments: tuple[str, ...], said: str) -> None:
    done = call_cli("cost", "--backend", "llava", "--model", str(folder), *arguments)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_odd_folders_are_named(call_cli: CalledCli, folder: Path, tmp_path: Path) -> None:
    def refused(*arguments: str) -> str:
        done = call_cli("cost", *arguments)
        assert done.returncode == 1, done
        return done.stderr

    (tmp_path / "empty").mkdir()
    assert "holds no config.json" in refused("--backend", "llava", "--model", str(tmp_path / "empty"))
    assert "no such folder" in refused("--backend", "llava", "--model", str(tmp_path / "none"))
    assert "is not served by backend 'idefics'" in refused("--backend", "idefics", "--model", str(folder))
    assert "no backend named 'lava'" in refused("--backend", "lava")
    (folder / "tokenizer.json").write_text("{")
    assert "cut or malformed" in refused("--backend", "llava", "--model", str(folder))
    (folder / "config.json").write_text("[]")
    assert "names no model_type" in refused("--backend", "llava", "--model", str(folder))


def test_answer_says_it_in_one_line_before_it_starts(call_cli: CalledCli, demos: Path, tmp_path: Path) -> None:
    queries, out = tmp_path / "queries.jsonl", tmp_path / "answers.jsonl"
    queries.write_text(json.dumps({"image": "0.png", "text": "What is it?"}))
    arguments = ("answer", "--demos", str(demos), "--queries", str(queries), "--out", str(out), "--shots", "2")
    done = call_cli(*arguments, "--selector", "first", "--max-new-tokens", "2", "--mode", "interleaved")
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("cost: ")]
    assert line.startswith("cost: interleaved, 2 shots: up to ")
    foreseen = int(line.split("up to ")[1].split()[0].replace(",", ""))
    assert foreseen >= json.loads(out.read_text())["prompt_tokens"]
    again = call_cli(*arguments, "--selector", "first", "--max-new-tokens", "2", "--mode", "interleaved")
    assert "cost: " not in again.stderr


def test_numbers_alone_replace_the_default(call_cli: CalledCli, folder: Path) -> None:
    def shots(*arguments: str) -> list[int]:
        made = call_cli("cost", *arguments, "--backend", "llava", "--model", str(folder), "--modes", "aim", "--json")
        return [row["shots"] for row in json.loads(made.stdout)["prompts"]]

    assert shots("2", "8") == [2, 8]
    assert shots("2", "--shots", "3") == [2, 3]
    assert shots() == [4, 8, 16]
