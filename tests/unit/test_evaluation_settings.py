"""The settings of a run, as Python gives them: one value is a list of one, and a mistake is an InputError by name."""

from pathlib import Path
from typing import Any

import pytest

from aim_sdk.cli.options import without_keys
from aim_sdk.errors import InputError
from aim_sdk.evaluation.settings import EvalSettings


def made(**changes: Any) -> EvalSettings:
    return EvalSettings(**{"output": Path("run"), "backend": "pocket", "tasks": ("easy-vqa",), **changes})


def test_one_value_is_a_list_of_one_and_a_path_names_a_task() -> None:
    found = made(tasks="easy-vqa", shots=4, modes="aim")
    assert (found.tasks, found.shots, found.modes) == (("easy-vqa",), (4,), ("aim",))
    assert made(tasks=[Path("birds/task.yaml"), "okvqa"]).tasks == ("birds/task.yaml", "okvqa")
    assert made(tasks=Path("task.yaml"), output="run").output == Path("run")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tasks", []),
        ("tasks", 3.5),
        ("tasks", ["a", "a"]),
        ("modes", []),
        ("modes", ["aim", "aims"]),
        ("shots", []),
        ("shots", -1),
        ("shots", "many"),
        ("seeds", 0),
        ("task", "easy-vqa"),
        ("model", "/no/model"),
    ],
)
def test_a_mistake_is_an_input_error_that_names_the_setting(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=rf"EvalSettings:\n  {name}") as refused:
        made(**{name: value})
    assert "pydantic" not in str(refused.value)
    assert "PosixPath" not in str(refused.value)


def test_a_path_that_is_not_there_is_not_looked_for_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("./model", "../model", "/models/llava", "~nobody/model", "models/llava/7b", "model/"):
        for name in ("model", "projector"):
            with pytest.raises(InputError, match=rf"  {name}: .*no such folder or file.*'{path}'"):
                made(**{name: path})
    assert made(model="llava-hf/llava-1.5-7b-hf", projector="carrier").model
    (tmp_path / "model").mkdir()
    assert made(model="./model").model


def test_a_bank_and_a_cache_do_not_go_together() -> None:
    with pytest.raises(InputError, match=r"cache: .*with bank") as refused:
        made(bank="bank", cache="cache")
    assert "easy-vqa" not in str(refused.value), "the other settings are no part of it"


def test_options_of_a_backend(tmp_path: Path) -> None:
    """What decides the answers is kept; keys and addresses are shown nowhere."""
    given = {"api_key": "secret", "base_url": "http://10.0.0.1:8000", "revision": "main"}
    settings = EvalSettings(output=tmp_path, backend="vllm", backend_options=given)
    assert settings.shown()["backend_options"] == settings.identity()["backend_options"] == {"revision": "main"}
    assert "secret" not in str(settings.shown())
    assert "backend_options" not in EvalSettings(output=tmp_path, backend="vllm").identity()
    command = ["eval", "--option", "api_key=secret", "--option=api_key=secret", "shots=[0,4]"]
    assert without_keys(command) == ["eval", "--option", "api_key=...", "--option=api_key=...", "shots=[0,4]"]
    with pytest.raises(InputError, match="device is a setting of its own"):
        EvalSettings(output=tmp_path, backend="vllm", backend_options={"device": "cpu"})
