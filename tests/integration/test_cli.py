"""The command line as a user runs it: files in, files out, errors without tracebacks."""

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from aim_sdk.answering.queries import read_demonstrations
from aim_sdk.errors import InputError
from tests.conftest import run_cli, start_cli


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def files(tmp_path: Path, pictures: list[Image.Image]) -> Path:
    """A folder with images, demos.jsonl and queries.jsonl."""
    (tmp_path / "images").mkdir()
    for i, picture in enumerate(pictures):
        picture.save(tmp_path / "images" / f"{i}.png")
    demos = [{"image": f"images/{i}.png", "text": "What?", "answer": f"a {i}"} for i in range(3)]
    queries = [{"image": f"images/{i}.png", "text": "What?", "id": f"q{i}", "answer": "gold"} for i in range(3, 8)]
    (tmp_path / "demos.jsonl").write_text("\n".join(map(json.dumps, demos)) + "\n")
    (tmp_path / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)) + "\n")
    return tmp_path


@pytest.fixture
def command(files: Path, tiny: Callable[[str], Path]) -> list[str]:
    return [
        *("answer", "--backend", "llava", "--model", str(tiny("llava-1.5")), "--projector", "residual"),
        *("--demos", str(files / "demos.jsonl"), "--queries", str(files / "queries.jsonl")),
        *("--out", str(files / "answers.jsonl"), "--max-new-tokens", "4", "--batch-size", "2", "--device", "cpu"),
    ]


@pytest.mark.slow
def test_answers_resume_and_bad_lines_lose_only_themselves(files: Path, command: list[str]) -> None:
    whole = run_cli(*command)
    assert whole.returncode == 0, whole.stderr
    answers = lines(files / "answers.jsonl")
    assert [answer["id"] for answer in answers] == [f"q{i}" for i in range(3, 8)]
    assert all(answer["reference"] == "gold" and answer["prompt_tokens"] > 0 for answer in answers)

    # As after a kill: the third line is cut in the middle, the rest is missing; a bad line has come.
    content = (files / "answers.jsonl").read_text().splitlines()
    (files / "answers.jsonl").write_text("\n".join(content[:2]) + "\n" + content[2][:30])
    with (files / "queries.jsonl").open("a") as file:
        file.write('{"image": "images/3.png"\n{"image": "images/none.png", "text": "What?"}\n')
    again = run_cli(*command)
    assert again.returncode == 3
    assert "2 answers exist" in again.stderr
    assert "queries.jsonl:6: not JSON" in again.stderr
    assert "query of line 7" in again.stderr
    assert "no such file" in again.stderr
    assert lines(files / "answers.jsonl") == answers


@pytest.mark.slow
def test_an_interruption_keeps_what_is_finished(files: Path, command: list[str]) -> None:
    queries = lines(files / "queries.jsonl") * 40
    (files / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)) + "\n")
    process = start_cli(*command)
    out = files / "answers.jsonl"
    deadline = time.monotonic() + 120
    while not (out.exists() and out.read_bytes().count(b"\n") >= 4):
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "interrupted" in errors
    kept = out.read_bytes()
    assert run_cli(*command).returncode == 0
    assert out.read_bytes().startswith(kept[: kept.rfind(b"\n") + 1])
    assert [answer["line"] for answer in lines(out)] == list(range(1, 201))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--demos": "none.jsonl"}, "none.jsonl: cannot be read"),
        ({"--backend": "lava"}, "Did you mean 'llava'"),
        ({"--model": "/nowhere/llava"}, "no such folder"),
        ({"--device": "cuda:9"}, "device 'cuda:9'"),
        ({"--projector": "./nowhere"}, "no such projector folder"),
        ({"--mode": "text_only"}, "Did you mean 'text-only'"),
        ({"--template": "{image}"}, "expected {image} and {answer}"),
        ({"--dtype": "float8"}, "dtype named 'float8'"),
        ({"--shots": "4"}, "4 shots asked for"),
    ],
)
def test_a_users_error_is_a_message(files: Path, command: list[str], change: dict[str, str], message: str) -> None:
    from typer.testing import CliRunner

    from aim_sdk.cli import app
    from aim_sdk.errors import AIMError

    for option, value in change.items():
        if option in command:
            command[command.index(option) + 1] = value
        else:
            command += [option, value]
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, AIMError)
    assert message in str(result.exception)


def test_main_prints_an_error_without_a_traceback(files: Path) -> None:
    missing = str(files / "none.jsonl")
    result = run_cli("answer", "--demos", missing, "--queries", missing, "--out", str(files / "a.jsonl"))
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr


def test_backends_list_names_every_built_in_backend() -> None:
    listed = json.loads(run_cli("backends", "list", "--json").stdout)
    assert {"auto", "idefics", "llava", "pocket", "qwen-vl"} <= {info["name"] for info in listed}


def test_help_and_version() -> None:
    assert "demo" in run_cli("--help").stdout
    assert run_cli("--version").stdout.startswith("aim-icl ")


def test_lines_are_validated_one_by_one(files: Path) -> None:
    good = '{"image": "images/0.png", "text": "What?", "answer": "a"}'
    bad = [
        "[1]",
        '{"image": 3, "answer": "a"}',
        '{"image": "images/0.png", "answer": " "}',
        '{"image": "x.png", "answer": "a"}',
    ]
    (files / "mixed.jsonl").write_text("\n".join([good, "", *bad]))
    found, problems = read_demonstrations(files / "mixed.jsonl")
    assert len(found) == 1
    assert [problem.split(": ")[0].rsplit(":", 1)[1] for problem in problems] == ["3", "4", "5", "6"]
    (files / "bad.jsonl").write_text("\n".join(bad))
    with pytest.raises(InputError, match="no usable line"):
        read_demonstrations(files / "bad.jsonl")


@pytest.mark.slow
def test_backends_check_prints_a_table_and_its_exit_code_tells() -> None:
    tiny = ("backends", "check", "llava", "--tiny", "llava-1.5", "--device", "cpu")
    two = ("--check", "zero_demonstrations", "--check", "reading_is_the_text")
    good = run_cli(*tiny, *two)
    assert good.returncode == 0, good.stderr
    assert "Writing model shards" not in good.stderr
    assert good.stdout.rstrip().endswith(": 2 passed")
    assert "reading_is_the_text" in good.stdout

    unexpected = run_cli(*tiny, *two, "--expect", "reading_is_the_text=no reason", "--json")
    assert unexpected.returncode == 1
    assert [result["status"] for result in json.loads(unexpected.stdout)] == ["passed", "unexpected pass"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lava"], "Did you mean 'llava'"),
        (["llava", "--tiny", "lava-1.5"], "Did you mean 'llava-1.5'"),
        (["llava", "--tiny", "llava-1.5", "--model", "x"], "leave --model out"),
        (["llava", "--tiny", "llava-1.5", "--check", "threads"], "Did you mean 'threads_do_not_mix'"),
        (["llava", "--tiny", "llava-1.5", "--expect", "threads"], "expected check=reason"),
    ],
)
def test_backends_check_explains_wrong_arguments(arguments: list[str], message: str) -> None:
    found = run_cli("backends", "check", *arguments)
    assert found.returncode == 1
    assert message in found.stderr
    assert "Traceback" not in found.stderr
