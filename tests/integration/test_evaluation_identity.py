"""What makes a run the run that it is: its tasks, images, model and projector, wherever it is typed from."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from aim_sdk.errors import InputError
from aim_sdk.evaluation.batches import BatchAnswerer
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
    monkeypatch.setattr(BatchAnswerer, "answer", lambda *_: pytest.fail("answered again"))
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


@pytest.mark.parametrize("part", ["queries", "support"])
@pytest.mark.parametrize("mode", ["aim", "interleaved", "nearest"])
def test_other_images_are_another_run(settings: dict[str, Any], task: Path, part: str, mode: str) -> None:
    run(settings, modes=(mode,))
    for number in range(6):
        Image.new("RGB", (20, 20), (7, 7, number)).save(task.parent / f"{part}-{number}.png")
    with pytest.raises(InputError, match=rf"answers to other images: .*{part}-\d\.png is a different image") as refused:
        run(settings, modes=(mode,))
    assert "--output" in str(refused.value)


def test_images_that_no_answer_depends_on_may_change(settings: dict[str, Any], task: Path) -> None:
    first = run(settings, modes=("zero-shot", "text-only"))
    for number in range(6):
        Image.new("RGB", (20, 20)).save(task.parent / f"support-{number}.png")
    assert comparable(run(settings, modes=("zero-shot", "text-only"))) == comparable(first)


def test_a_file_that_is_only_newer_or_moved_is_the_same(settings: dict[str, Any], task: Path, tmp_path: Path) -> None:
    first = run(settings)
    for image in task.parent.glob("*.png"):
        os.utime(image, (1, 1))
    assert comparable(run(settings)) == comparable(first)
    shutil.move(task.parent, tmp_path / "moved")
    assert comparable(run(settings, tasks=(str(tmp_path / "moved" / "task.yaml"),))) == comparable(first)


def test_images_that_change_while_it_is_away_are_not_mixed(
    settings: dict[str, Any], task: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the answers to the old images are kept, the other half is to come."""
    answer, left = BatchAnswerer.answer, [2]

    def killed(*arguments: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return answer(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(BatchAnswerer, "answer", killed)
        with pytest.raises(KeyboardInterrupt):
            run(settings)
    for number in range(7):
        Image.new("RGB", (20, 20)).save(task.parent / f"queries-{number}.png")
    with pytest.raises(InputError, match="answers to other images"):
        run(settings)


@pytest.mark.parametrize("part", ["queries", "support"])
def test_what_was_refused_is_asked_again_once_it_is_repaired(
    settings: dict[str, Any], task: Path, tmp_path: Path, part: str
) -> None:
    expected = comparable(run(settings, output=tmp_path / "whole"))
    image = task.parent / f"{part}-1.png"
    whole = image.read_bytes()
    image.write_bytes(whole[:40])
    broken = run(settings)
    assert sum(score.refused for score in broken.scores) > 0
    size = (settings["output"] / "answers-0.jsonl").stat().st_size
    assert comparable(run(settings)) == comparable(broken)
    assert (settings["output"] / "answers-0.jsonl").stat().st_size == size
    image.write_bytes(whole)
    notes: list[str] = []
    mended = evaluate(EvalSettings.model_validate(settings), show=False, note=notes.append)
    assert mended is not None
    assert comparable(mended) == expected
    assert any("refused before are asked again" in note for note in notes)
    image.write_bytes(whole[:40])
    with pytest.raises(InputError, match="answers to other images"):
        run(settings)


def test_the_command_says_by_its_exit_code_that_queries_were_refused(
    settings: dict[str, Any], task: Path, call_cli: CalledCli
) -> None:
    typed = arguments(settings)
    image = task.parent / "queries-1.png"
    whole = image.read_bytes()
    image.write_bytes(whole[:40])
    finished = call_cli(*typed)
    assert finished.returncode == 3, finished.stderr
    assert "refused" in finished.stdout
    assert (settings["output"] / "report.md").exists(), "all is written"
    assert call_cli("eval", "report", str(settings["output"]), "--output", str(settings["output"])).returncode == 0
    image.write_bytes(whole)
    assert call_cli(*typed).returncode == 0


def test_a_result_holds_what_was_asked_and_by_what(settings: dict[str, Any], tmp_path: Path) -> None:
    found = run(settings, modes=("zero-shot", "text-only", "aim", "interleaved", "nearest"), shots=(0, 1, 2), seeds=2)
    assert found.computed == {"dtype": "float32", "device": "cpu", "default_format": "chat"}
    asked = found.queries["colours"]
    assert len(asked) == 7
    assert (asked["q1"].text, asked["q1"].references, asked["q1"].image) == (
        *("What colour is it?", ("blue",)),
        "queries-1.png",
    )
    assert all(len(question.image_sha256 or "") == 64 for question in asked.values())
    examples = found.examples["colours"]
    assert list(examples) == ["zero-shot", "text-only", "aim", "interleaved"]
    for mode, example in examples.items():
        assert "What colour is it?" in str(example.prompt)
        assert example.shots == len(example.shown) == (0 if mode == "zero-shot" else 2)
    assert "fused x" in str(examples["aim"].prompt)
    assert examples["aim"].shown[0][0] == "What colour is it?"
    near = [answers.cell.seed for answers in found.answers if answers.cell.mode == "nearest"]
    assert near == [0, 0], "one seed for each number of shots"


def test_a_run_over_other_data_is_no_pair(settings: dict[str, Any], tmp_path: Path, call_cli: CalledCli) -> None:
    run(settings, output=tmp_path / "a")
    other = write_task(tmp_path / "other")
    rows = (other.parent / "queries.jsonl").read_text().replace("What colour", "Which colour")
    (other.parent / "queries.jsonl").write_text(rows)
    run(settings, output=tmp_path / "b", tasks=(str(other),))
    refused = call_cli("eval", "compare", str(tmp_path / "a"), str(tmp_path / "b"))
    assert refused.returncode == 1
    assert "the runs use different data: query 'q0' has a different question" in refused.stderr
    itself = call_cli("eval", "compare", str(tmp_path / "a"), str(tmp_path / "a" / "result.json"))
    assert itself.returncode == 1
    assert "--modes text-only,aim" in itself.stderr


def test_messages_of_paths_say_what_is_there(
    settings: dict[str, Any], task: Path, tmp_path: Path, call_cli: CalledCli
) -> None:
    (tmp_path / "afile").write_text("mine")
    said = call_cli(*arguments(settings, output=tmp_path / "afile")).stderr
    assert "afile is a file; expected a folder" in said
    (task.parent / "support.jsonl").unlink()
    said = call_cli(*arguments(settings)).stderr
    assert "support.jsonl" in said
    assert "--data" not in said
    assert "relative to its YAML file" in said
