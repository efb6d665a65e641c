"""What makes a run the run that it is: its tasks, images, model and projector, wherever it is typed from."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from aim_sdk.errors import InputError
from aim_sdk.evaluation.answering import Answering
from aim_sdk.evaluation.plan import Plan
from aim_sdk.evaluation.runner import evaluate
from aim_sdk.evaluation.settings import EvalSettings
from tests.conftest import CalledCli
from tests.integration.test_evaluation import arguments, comparable, run, write_task


@pytest.fixture
def task(tmp_path: Path) -> Path:
    return write_task(tmp_path / "task")


@pytest.fixture
def settings(tiny: Callable[[str], Path], task: Path, tmp_path: Path) -> dict[str, Any]:
    return {
        "output": tmp_path / "run",
        "backend": "llava",
        "model": str(tiny("llava-1.5")),
        "projector": "carrier",
        "device": "cpu",
        "tasks": (str(task),),
        "shots": (2,),
        "modes": ("zero-shot", "aim"),
        "seeds": 1,
        "batch_size": 3,
    }


@pytest.mark.parametrize("name", ["colours", "easy-vqa"])
def test_two_tasks_of_one_name_are_refused_with_both_files(
    settings: dict[str, Any], task: Path, tmp_path: Path, name: str
) -> None:
    own = write_task(tmp_path / "other", name=name)
    other = str(task) if name == "colours" else name
    with pytest.raises(InputError) as refused:
        Plan(EvalSettings.model_validate({**settings, "tasks": (other, str(own))}))
    assert other in str(refused.value)
    assert str(own) in str(refused.value)
    assert f"'{name}'" in str(refused.value)


def test_one_task_named_twice_is_said_without_the_other_settings(settings: dict[str, Any], call_cli: CalledCli) -> None:
    said = call_cli(*arguments(settings, tasks=settings["tasks"] * 2)).stderr
    assert "is named twice" in said
    assert "PosixPath" not in said
    assert "batch_size" not in said


def test_a_run_resumes_from_another_directory(
    settings: dict[str, Any], task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is compared is the model and the data, not how their paths are typed."""
    model = Path(settings["model"])
    monkeypatch.chdir(model.parent)
    first = run({**settings, "model": model.name, "tasks": (os.path.relpath(task),)})
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setattr(Answering, "answer", lambda *_: pytest.fail("answered again"))
    second = run({**settings, "model": os.path.relpath(model), "tasks": (os.path.relpath(task),)})
    assert comparable(second) == comparable(first)


def test_another_model_behind_another_path_is_another_run(
    settings: dict[str, Any], tiny: Callable[[str], Path]
) -> None:
    run(settings, modes=("zero-shot",))
    with pytest.raises(InputError, match=r"weights|embeddings|tokenizer|backend"):
        run(settings, modes=("zero-shot",), model=str(tiny("idefics3")), backend="idefics")
    with pytest.raises(InputError, match=r"  (weights|embeddings|tokenizer): "):
        run(settings, modes=("zero-shot",), model=str(tiny("llava-next")))
