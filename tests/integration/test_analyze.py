"""``aim-icl analyze attention`` as a user runs it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.conftest import run_cli


@pytest.fixture
def command(tmp_path: Path, pictures: list[Image.Image], tiny: Callable[[str], Path]) -> list[str]:
    for i, picture in enumerate(pictures):
        picture.save(tmp_path / f"{i}.png")
    demos = [{"image": f"{i}.png", "text": "What?", "answer": f"a {i}"} for i in range(4)]
    queries: list[dict[str, Any]] = [{"image": f"{i}.png", "text": "What?", "answer": "red"} for i in range(3, 7)]
    queries[1].pop("answer")
    (tmp_path / "demos.jsonl").write_text("\n".join(map(json.dumps, demos)) + "\n")
    (tmp_path / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)) + "\n")
    return [
        *("analyze", "attention", "--backend", "llava", "--model", str(tiny("llava-1.5")), "--device", "cpu"),
        *("--demonstrations", str(tmp_path / "demos.jsonl"), "--queries", str(tmp_path / "queries.jsonl")),
        *("--shots", "2", "--out", str(tmp_path / "a folder")),
    ]


@pytest.mark.slow
def test_it_measures_prints_and_writes(tmp_path: Path, command: list[str]) -> None:
    shown = run_cli(*command)
    assert shown.returncode == 0, shown.stderr
    assert "n=4 queries" in shown.stdout
    assert (tmp_path / "a folder" / "attention.png").stat().st_size > 10_000
    text = (tmp_path / "a folder" / "attention.json").read_text()
    result = json.loads(text)
    assert str(tmp_path / "3.png") not in text
    assert [row["layer"] for row in result["layers"]] == [0, 1, None]
    assert result["settings"] == {"shots": 2, "limit": 50, "seed": 0, "queries": 4}
    assert [query["answer_is"] for query in result["queries"]].count("the model's own") == 1
    for query in result["queries"]:
        assert query["tokens"]["demonstration visual"] == 2 * 16
        for layer in range(2):
            assert sum(shares[layer] for shares in query["shares"].values()) == pytest.approx(1, abs=1e-5)
    means = [query["shares"]["demonstration text"][1] for query in result["queries"]]
    assert result["layers"][1]["shares"]["demonstration text"]["mean"] == pytest.approx(sum(means) / 4, abs=1e-5)


@pytest.mark.slow
def test_a_bad_query_loses_only_itself(tmp_path: Path, command: list[str]) -> None:
    with (tmp_path / "queries.jsonl").open("a") as file:
        file.write('{"image": "none.png"}\n{"image": "3.png", "text": "an <image>", "answer": "a"}\n{\n')
    shown = run_cli(*command)
    assert shown.returncode == 3, shown.stderr
    assert "n=4 queries" in shown.stdout
    for problem in ("query 5", "no such file", "query 6", "queries.jsonl:7: not JSON"):
        assert problem in shown.stderr
    assert "Traceback" not in shown.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--queries": None}, "pass --demonstrations and --queries, or neither"),
        ({"--shots": "5"}, "5 shots asked for"),
        ({"--backend": "lava"}, "Did you mean 'llava'"),
        ({"--template": "{image}"}, "expected {image} and {answer}"),
        ({"--out": "demos.jsonl"}, "the folder cannot be created"),
    ],
)
def test_a_users_error_is_a_message(
    tmp_path: Path, command: list[str], change: dict[str, str | None], message: str
) -> None:
    from typer.testing import CliRunner

    from aim_sdk.cli import app
    from aim_sdk.errors import AIMError

    for option, value in change.items():
        place = command.index(option) if option in command else len(command)
        path = str(tmp_path / value) if option == "--out" and value else value
        command[place : place + 2] = [] if path is None else [option, path]
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, AIMError)
    assert message in str(result.exception)


@pytest.mark.slow
def test_cross_attention_is_refused_before_anything_is_written(
    tmp_path: Path, command: list[str], tiny: Callable[[str], Path]
) -> None:
    command[command.index("--backend") + 1] = "idefics"
    command[command.index("--model") + 1] = str(tiny("idefics"))
    shown = run_cli(*command)
    assert shown.returncode == 1
    assert "cross-attention" in shown.stderr
    assert "Traceback" not in shown.stderr
    assert not list((tmp_path / "a folder").iterdir())


def test_help_explains_itself() -> None:
    assert "attention" in run_cli("analyze", "--help").stdout
    shown = run_cli("analyze", "attention", "--help").stdout
    for option in ("--demonstrations", "--queries", "--shots", "--limit", "--quick"):
        assert option in shown


@pytest.mark.slow
def test_without_files_the_demos_tasks_are_measured(tmp_path: Path, command: list[str]) -> None:
    for option in ("--queries", "--demonstrations"):
        place = command.index(option)
        del command[place : place + 2]
    shown = run_cli(*command, "--limit", "3")
    assert shown.returncode == 0, shown.stderr
    groups = [query["group"] for query in json.loads((tmp_path / "a folder" / "attention.json").read_text())["queries"]]
    assert [group.split()[0] for group in groups] == ["easy-vqa", "emoji-names", "emoji-labels"]


@pytest.mark.slow
def test_pocket_needs_no_files(tmp_path: Path) -> None:
    shown = run_cli("analyze", "attention", "--limit", "3", "--shots", "2", "--out", str(tmp_path))
    assert shown.returncode == 0, shown.stderr
    result = json.loads((tmp_path / "attention.json").read_text())
    assert [row["layer"] for row in result["layers"]] == [*range(30), None]
