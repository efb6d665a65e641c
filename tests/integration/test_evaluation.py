"""An evaluation as its user has it: every answer is the pipeline's own, however the run was cut or shared."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from aim_backends.hf.reader import TransformersReader
from aim_sdk import AIMPipeline
from aim_sdk.errors import ArtifactWriteError, InputError, ShotsError
from aim_sdk.evaluation import runner
from aim_sdk.evaluation.examples import examples
from aim_sdk.evaluation.plan import Plan
from aim_sdk.evaluation.report import facts
from aim_sdk.evaluation.results import Run
from aim_sdk.evaluation.runner import evaluate
from aim_sdk.evaluation.settings import EvalSettings
from aim_sdk.files.jobs import alone
from aim_sdk.types import Query
from tests.conftest import CalledCli, torchrun

COLOURS = {"red": (220, 30, 30), "blue": (30, 60, 220), "green": (30, 180, 60), "black": (9, 9, 9)}
MODES = ("zero-shot", "text-only", "interleaved", "aim", "no-image")


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's own task: what colour is the square?"""
    return write_task(tmp_path_factory.mktemp("task"))


@pytest.fixture(scope="module")
def choices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One whose answers are scored: is the square red?"""
    folder = tmp_path_factory.mktemp("choices")
    return write_task(folder, name="is-it-red", kind="meme", metric="roc_auc", choices=["yes", "no"])


def write_task(folder: Path, queries: int = 7, support: int = 6, long: str = "", **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    choices = changes.pop("choices", None)
    for part, count in (("queries", queries), ("support", support)):
        lines = []
        for number in range(count):
            colour = list(COLOURS)[number % len(COLOURS)]
            image = folder / f"{part}-{number}.png"
            Image.new("RGB", (30 + number, 40), COLOURS[colour]).save(image)
            answer = ("yes" if colour == "red" else "no") if choices else colour
            text = "What colour is it?" + (long if number == 0 and part == "support" else "")
            line = {"id": f"{part[0]}{number}", "image": image.name, "text": text, "answer": answer}
            lines.append(json.dumps(line | ({"choices": choices} if choices else {})))
        (folder / f"{part}.jsonl").write_text("\n".join(lines))
    content = {
        "name": "colours",
        "title": "Colours of squares",
        "kind": "classification",
        "metric": "exact_match",
        "loader": "jsonl",
        "files": {"queries": "queries.jsonl", "support": "support.jsonl"},
        "source": "made here",
        "licence": "none",
        "splits": "7 queries, 6 demonstrations",
        **changes,
    }
    (path := folder / "task.yaml").write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def settings(tiny: Callable[[str], Path], task: Path, tmp_path: Path) -> dict[str, Any]:
    return {
        "output": tmp_path / "run",
        "backend": "llava",
        "model": str(tiny("llava-1.5")),
        "projector": "carrier",
        "device": "cpu",
        "tasks": (str(task),),
        "shots": (0, 1, 3),
        "modes": MODES,
        "seeds": 2,
        "batch_size": 3,
    }


def run(settings: dict[str, Any], **changes: Any) -> Run:
    found = evaluate(EvalSettings.model_validate({**settings, **changes}), show=False)
    assert found is not None
    return found


def comparable(run: Run) -> dict[str, Any]:
    """A run without what depends on the clock and the machine."""
    return {
        "answers": [
            [a.cell.model_dump(), [p.model_dump(exclude={"seconds"}) for p in a.predictions]] for a in run.answers
        ],
        "scores": [s.model_dump_json(exclude={"seconds", "memory_bytes"}) for s in run.scores],
    }


def arguments(settings: dict[str, Any], **changes: Any) -> list[str]:
    """The same run, as it is typed."""
    whole = {**settings, **changes}
    found = []
    for name, value in whole.items():
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        found += [f"--{name.replace('_', '-')}", text]
    return ["eval", *found]


def command(settings: dict[str, Any], *launcher: str, **changes: Any) -> list[str]:
    return [*(launcher or (sys.executable, "-m", "aim_sdk.cli")), *arguments(settings, **changes)]


def test_a_run_names_the_version_of_its_backends_distribution(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aim_sdk.evaluation.runner.version_of", lambda name: {f"aim-{name}": "0.3"})
    found = run(settings, shots=(1,), modes=("aim",), seeds=1)
    assert found.versions["aim-llava"] == "0.3"
    assert "aim-llava 0.3" in facts(found)["versions"]


@pytest.mark.slow
def test_every_answer_is_the_pipelines_own(settings: dict[str, Any]) -> None:
    found = run(settings)
    plan = Plan(EvalSettings.model_validate(settings))
    (work,) = plan.works
    pipe = AIMPipeline.from_pretrained("llava", model=settings["model"], projector="carrier", device="cpu")
    assert len(found.answers) == 1 + 4 * 2 * 2
    for answers in found.answers:
        cell = answers.cell
        source = plan.source(work, cell.seed)
        assert [p.item for p in answers.predictions] == [item.id for item in work.queries]
        for item, prediction in zip(work.queries, answers.predictions, strict=True):
            (shown,) = source.choose([item], cell.shots)
            assert prediction.demonstrations == tuple(name for name, _ in shown)
            (own,) = pipe.generate(
                [Query(item.image, item.text)],
                demonstrations=[[d for _, d in shown]],
                mode=cell.mode,
                max_new_tokens=16,
            )
            assert prediction.raw == own.text
            assert prediction.prompt_tokens == own.prompt_tokens
            assert prediction.score == 100.0 * (own.text.casefold() == item.answers[0])
    assert Run.load(settings["output"]).model_dump_json() == found.model_dump_json()  # NaN is no NaN's equal


def test_single_queries_are_timed_and_one_is_shown(settings: dict[str, Any]) -> None:
    modes = ("zero-shot", "aim", "no-image", "nearest")
    found = run(settings, timed=2, seed=5, seeds=1, modes=modes)
    timed = {score.mode for score in found.scores if not math.isnan(score.first_token_seconds)}
    assert timed == {"zero-shot", "aim"}
    assert all(len(a.first_token_seconds) == 2 * (a.cell.mode in timed) for a in found.answers)
    assert {answers.cell.seed for answers in found.answers} == {5}
    (shown,) = examples(found, shots=1)
    assert (shown.title, len(shown.demonstrations), set(shown.answers)) == ("Colours of squares", 1, set(modes))


def test_fewer_shots_are_the_first_of_more_and_other_queries_do_not_matter(settings: dict[str, Any]) -> None:
    plan = Plan(EvalSettings.model_validate(settings))
    (work,) = plan.works
    source = plan.source(work, 1)
    three = source.choose(work.queries, 3)
    assert [shown[:1] for shown in three] == source.choose(work.queries, 1)
    assert source.choose([work.queries[4]], 3) == [three[4]]
    assert plan.source(work, 0).choose(work.queries, 3) != three
    with pytest.raises(ShotsError, match="has 6 demonstrations"):
        source.choose(work.queries, 7)


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_as_if_it_had_not_been(settings: dict[str, Any], tmp_path: Path) -> None:
    expected = comparable(run(settings, output=tmp_path / "whole"))
    settings["batch_size"] = 3
    process = subprocess.Popen(command(settings), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    journal = settings["output"] / "answers-0.jsonl"
    while process.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") >= 5):
        time.sleep(0.01)
    process.kill()
    process.wait()
    kept = journal.read_bytes()
    journal.write_bytes(kept + kept[: kept.index(b"\n") // 2])  # killed in the middle of a line
    assert comparable(run(settings)) == expected
    assert len(journal.read_bytes().split(b"\n")) - 1 == 3 * len(expected["answers"])  # nothing was answered twice


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_answered(settings: dict[str, Any]) -> None:
    process = subprocess.Popen(command(settings, batch_size=1), stderr=subprocess.PIPE, text=True)
    journal = settings["output"] / "answers-0.jsonl"
    while not (journal.exists() and journal.read_bytes().count(b"\n") >= 2):
        time.sleep(0.02)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command resumes" in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_two_processes_answer_as_one(settings: dict[str, Any], tmp_path: Path) -> None:
    expected = comparable(run(settings, output=tmp_path / "one"))
    launched = command(settings, *torchrun(), "-m", "aim_sdk.cli")
    finished = subprocess.run(launched, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert comparable(Run.load(settings["output"])) == expected
    shares = [path.read_bytes().count(b"\n") for path in sorted(settings["output"].glob("answers-*.jsonl"))]
    assert len(shares) == 2
    assert abs(shares[0] - shares[1]) <= 1


def test_another_run_is_not_mixed_in(settings: dict[str, Any]) -> None:
    run(settings, modes=("zero-shot",))
    with pytest.raises(InputError, match="modes:"):
        run(settings, modes=("aim",))


def test_two_jobs_do_not_share_a_folder(settings: dict[str, Any]) -> None:
    with alone(settings["output"] / ".lock"), pytest.raises(ArtifactWriteError, match="another job is writing"):
        run(settings, modes=("zero-shot",))
    assert os.listdir(settings["output"]) == [".lock"]
    run(settings, modes=("zero-shot",))


@pytest.mark.parametrize("file", ["answers", "images"])
def test_a_full_disk_is_a_message_and_what_is_answered_is_kept(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    settings |= {"modes": ("zero-shot", "aim"), "seeds": 1}
    expected = comparable(run(settings, output=settings["output"] / "whole"))
    fsync, count = os.fsync, 0

    def full(handle: int) -> None:
        nonlocal count
        count += f"{file}-0" in os.readlink(f"/proc/self/fd/{handle}")
        if count > 2:
            raise OSError(28, "No space left on device")
        fsync(handle)

    output = settings["output"] / "cut"
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ArtifactWriteError, match=rf"{file}-0\.jsonl: cannot be written \(No space left on device\)"):
        run(settings, output=output)
    monkeypatch.setattr(os, "fsync", fsync)
    with (output / "answers-0.jsonl").open("ab") as journal:
        journal.write(b'[1]\n{"cell": 3, "number": 0}\n' + b"[" * 5000 + b"\n" + b'{"cell": {"task"')
    assert comparable(run(settings, output=output)) == expected


def test_a_prompt_that_does_not_fit_is_reported(settings: dict[str, Any], tmp_path: Path) -> None:
    task = write_task(tmp_path, long=" very long" * 600)
    found = run(settings, tasks=(str(task),), seeds=1, modes=("zero-shot", "text-only"), shots=(0, 3))
    zero, texts = found.scores
    assert zero.too_long == 0
    (answers,) = found.answered("colours", "text-only", 3)
    for prediction in answers.predictions:
        assert prediction.fits == ("s0" not in prediction.demonstrations)
    assert 0 < texts.too_long < 7
    assert texts.value != texts.value  # no number where some did not fit
    assert Run.load(settings["output"]).scores[1].too_long == texts.too_long


def test_choices_are_scored(settings: dict[str, Any], choices: Path) -> None:
    found = run(settings, tasks=(str(choices),), modes=("text-only",), shots=(2,), seeds=1)
    (answers,) = found.answers
    for prediction in answers.predictions:
        assert prediction.raw is None
        assert prediction.log_probs is not None
        best = max(range(2), key=prediction.log_probs.__getitem__)
        assert prediction.answer == ("yes", "no")[best]
    (score,) = found.scores
    assert 0 <= score.value <= 100


def test_a_selector_chooses_from_the_pool(settings: dict[str, Any]) -> None:
    found = run(settings, selector="reading", modes=("aim", "text-only"), shots=(2,), seeds=1)
    aim, texts = found.answers
    chosen = [p.demonstrations for p in aim.predictions]
    assert chosen == [p.demonstrations for p in texts.predictions]
    assert all(len(set(names)) == 2 for names in chosen)


def test_openflamingos_zero_shot_has_two_texts_before_it(settings: dict[str, Any]) -> None:
    found = run(settings, protocol="openflamingo-v2", modes=("zero-shot",))
    for answers in found.answers:
        assert all(len(p.demonstrations) == 2 for p in answers.predictions)
    assert len(found.answers) == 2


def test_a_cache_on_disk_serves_the_next_run(settings: dict[str, Any], tmp_path: Path) -> None:
    first = run(settings, cache=tmp_path / "cache", modes=("aim",))
    second = run(settings, cache=tmp_path / "cache", modes=("aim",), output=tmp_path / "again")
    assert comparable(first) == comparable(second)
    assert second.reading_seconds < first.reading_seconds


def test_the_commands_say_what_is_wrong(settings: dict[str, Any], task: Path, call_cli: CalledCli) -> None:
    cases = {
        "Did you mean 'openflamingo-v2'": {"protocol": "openflamingo"},
        "'text-only'": {"modes": ("text_only",)},
        "Did you mean 'reading'": {"selector": "readings"},
        "no prompt for task 'colours'": {"protocol": "lmms-eval"},
        "shots": {"shots": ("two",)},
        "tasks": {"tasks": (str(task), str(task))},
        "there is nothing to ask": {"shots": (0,), "modes": ("aim",)},
        "7 shots asked for": {"shots": (7,)},
    }
    for message, changes in cases.items():
        finished = call_cli(*arguments(settings, **changes))
        assert finished.returncode == 1, message
        assert message in finished.stderr
    assert call_cli("eval").returncode == 2
    assert "openflamingo-v2" in call_cli("eval", "protocols").stdout
    assert "flickr30k" in call_cli("eval", "tasks").stdout


@pytest.mark.slow
def test_a_file_of_settings_is_a_run(settings: dict[str, Any], call_cli: CalledCli, tmp_path: Path) -> None:
    file = tmp_path / "evaluation.yaml"
    listed = {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}
    file.write_text(yaml.safe_dump(listed | {"output": "elsewhere", "limit": 2, "projector": "linear"}))
    changes = (f"output={settings['output']}", "limit=null", "projector=carrier")
    finished = call_cli("eval", "run", str(file), *changes)
    assert finished.returncode == 0, finished.stderr
    told = {**settings, "output": tmp_path / "told"}
    assert comparable(Run.load(settings["output"])) == comparable(run(told))
    for arguments, message in {
        ("run", str(file), "limits=2"): "Did you mean 'limit'",
        ("run", str(tmp_path / "none.yaml")): "no such file",
        ("--limit", "2", "run", str(file)): "Next: write limit=2 after 'run'.",
        ("--limit", "2", "protocols"): "does not take the options before it",
    }.items():
        wrong = call_cli("eval", *arguments)
        assert wrong.returncode == 1
        assert message in wrong.stderr


@pytest.mark.slow
def test_a_run_is_reported_and_compared(settings: dict[str, Any], call_cli: CalledCli, tmp_path: Path) -> None:
    finished = call_cli(*arguments(settings))
    assert finished.returncode == 0, finished.stderr
    assert (settings["output"] / "report.md").exists()
    folder = str(settings["output"])
    assert call_cli("eval", "report", folder, "--output", str(tmp_path / "report")).returncode == 0
    assert "<html" in (tmp_path / "report" / "report.html").read_text()
    wrong = call_cli("eval", "compare", folder, folder, "--modes", "text_only,aim")
    assert "Did you mean 'text-only'" in wrong.stderr
    assert "expected two" in call_cli("eval", "compare", folder, folder, "--modes", "aim").stderr
    compared = call_cli("eval", "compare", folder, folder, "--modes", "text-only,aim")
    assert compared.returncode == 0, compared.stderr
    assert "| --- |" in call_cli("eval", "compare", folder, folder, "--modes", "text-only,aim", "--markdown").stdout


@pytest.mark.slow
def test_all_tasks_that_are_here_run_on_pocket(tmp_path: Path) -> None:
    names = ("easy-vqa", "emoji-category", "emoji-labels", "emoji-names")
    found = run(
        {"output": tmp_path / "run", "backend": "pocket", "device": "cpu"},
        tasks=names,
        shots=(0, 2),
        modes=MODES,
        seeds=1,
        limit=3,
        batch_size=3,
    )
    assert len(found.scores) == len(names) * len(MODES)
    for score in found.scores:
        assert score.too_long == 0
        assert 0 <= score.value <= 100
    tokens = {(s.task, s.mode): s.prompt_tokens for s in found.scores}
    for name in names:
        assert (
            tokens[name, "aim"] == tokens[name, "text-only"] == tokens[name, "no-image"] < tokens[name, "interleaved"]
        )


def test_a_signal_is_heard_while_a_pool_is_read(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A selector's pool may take hours; the same command resumes."""
    read, prepare = list[int](), TransformersReader.prepare

    def counted(self: TransformersReader, demonstrations: Any, **options: Any) -> Any:
        read.append(len(demonstrations))
        return prepare(self, demonstrations, **options)

    monkeypatch.setattr(TransformersReader, "prepare", counted)
    near: dict[str, Any] = {**settings, "selector": "reading", "modes": ("aim",), "shots": (1,), "seeds": 1}
    with monkeypatch.context() as patched:
        patched.setattr(runner, "interruptible", lambda: nullcontext(lambda: True))
        assert evaluate(EvalSettings.model_validate(near), show=False) is None
    assert sum(read) <= 1
    assert run(near).scores
    assert sum(read) > 3
