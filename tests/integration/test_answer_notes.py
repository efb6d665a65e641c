"""What `answer` and `cost` say of what was asked for and is not done: fewer demonstrations, a text that is not used."""

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import CalledCli

FEWER = "1 query was shown fewer demonstrations than asked"


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A demonstration, a query that is the same picture, and another one."""
    for name, colour in (("red", "red"), ("blue", "blue")):
        Image.new("RGB", (64, 64), colour).save(tmp_path / f"{name}.png")
    demo = {"image": "red.png", "text": "Colour?", "answer": "red"}
    (tmp_path / "demos.jsonl").write_text(json.dumps(demo))
    queries = [json.dumps({"image": f"{name}.png", "text": "Colour?"}) for name in ("blue", "red")]
    (tmp_path / "queries.jsonl").write_text("\n".join(queries))
    return tmp_path


@pytest.mark.parametrize(
    ("mode", "said"), [("aim", True), ("text-only", True), ("zero-shot", False), ("nearest", False)]
)
def test_queries_that_are_shown_too_few_are_counted(desk: Path, call_cli: CalledCli, mode: str, said: bool) -> None:
    """In mode nearest nothing is shown: the demonstrations vote."""
    queries = desk / "queries.jsonl"
    if mode == "nearest":  # the demonstration's own picture has no vote
        queries.write_text(queries.read_text().splitlines()[0])
    run = call_cli(
        *("answer", "--demos", str(desk / "demos.jsonl"), "--queries", str(queries)),
        *("--out", str(desk / "out.jsonl"), "--mode", mode, "--max-new-tokens", "2"),
    )
    assert run.returncode == 0, run.stderr
    assert (FEWER in " ".join(run.stderr.split())) == said
    assert ("the first: line 2" in " ".join(run.stderr.split())) == said


@pytest.mark.parametrize(
    ("named", "wrong"),
    [("red,,blue", "'' at 1 is blank"), ("", "choices: none"), ("red,blue,red", "at 0 and 'red' at 2")],
)
def test_wrong_choices_are_named_with_their_place(desk: Path, call_cli: CalledCli, named: str, wrong: str) -> None:
    run = call_cli(
        *("answer", "--demos", str(desk / "demos.jsonl"), "--queries", str(desk / "queries.jsonl")),
        *("--out", str(desk / "out.jsonl"), "--choices", named),
    )
    assert run.returncode == 1
    assert wrong in " ".join(run.stderr.split())


def test_a_text_that_every_demonstration_replaces_is_said_to_be_unused(desk: Path, call_cli: CalledCli) -> None:
    run = call_cli("cost", "--demos", str(desk / "demos.jsonl"), "--text", "What is it?")
    assert run.returncode == 0
    assert "--text is not used" in " ".join(run.stderr.split())


def test_numbers_of_shots_alone_replace_the_default(call_cli: CalledCli) -> None:
    found = json.loads(call_cli("cost", "4", "2", "--modes", "aim", "--json").stdout)
    assert [prompt["shots"] for prompt in found["prompts"]] == [2, 4]


def test_numbers_over_the_limit_are_said_to_be_over_it(call_cli: CalledCli) -> None:
    many, large = call_cli("cost", "--shots", "1000000000000"), call_cli("cost", "--image-size", "1000000x1000000")
    assert many.returncode == large.returncode == 1
    assert "4,096" in many.stderr or "4096" in many.stderr
    assert "as in 640x480" not in large.stderr
