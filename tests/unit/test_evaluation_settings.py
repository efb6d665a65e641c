"""The settings of a run, as Python gives them: one value is a list of one, and a mistake is an InputError by name."""

from pathlib import Path
from typing import Any

import pytest

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
    ],
)
def test_a_mistake_is_an_input_error_that_names_the_setting(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=rf"EvalSettings:\n  {name}") as refused:
        made(**{name: value})
    assert "pydantic" not in str(refused.value)
    assert "PosixPath" not in str(refused.value)
