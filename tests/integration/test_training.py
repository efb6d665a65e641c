"""A training run as its user has it: exact when interrupted or shared by processes, clear about what fails."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import yaml
from PIL import Image
from torch import Tensor

from aim_backends.hf.reader import TransformersReader
from aim_sdk import AIMPipeline, Demonstration
from aim_sdk.errors import AIMError, ArtifactWriteError, InputError, TrainingError
from aim_sdk.files.jobs import alone
from aim_sdk.projectors import KINDS
from aim_sdk.training import TrainingConfig, starting, train
from aim_sdk.training.evaluation import FIXED, ROWS
from aim_sdk.training.forward import Forward
from aim_sdk.training.journal import read_log
from aim_sdk.training.targets import Target
from tests.conftest import CalledCli, torchrun

COLOURS = {"red": (220, 30, 30), "blue": (30, 60, 220), "green": (30, 180, 60), "black": (9, 9, 9)}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 documents of four coloured squares, one of which is not an image."""
    folder = tmp_path_factory.mktemp("corpus")
    lines = []
    for document in range(24):
        pairs = []
        for place in range(4):
            name = list(COLOURS)[(document * 3 + place * (1 + document % 3)) % len(COLOURS)]
            image = folder / f"{document}-{place}.png"
            noise = Image.effect_noise((40, 40), 60).convert("RGB")
            Image.blend(noise, Image.new("RGB", (40, 40), COLOURS[name]), 0.8).save(image)
            pairs.append({"image": image.name, "answer": f"A {name} square."})
        lines.append(json.dumps({"pairs": pairs}))
    (folder / "5-1.png").write_bytes((folder / "5-1.png").read_bytes()[:300])
    (folder / "docs.jsonl").write_text("\n".join(lines))
    return folder / "docs.jsonl"


@pytest.fixture
def settings(tiny: Callable[[str], Path], corpus: Path, tmp_path: Path) -> dict[str, Any]:
    return {
        "output": str(tmp_path / "run"),
        "backend": "llava",
        "model": str(tiny("llava-1.5")),
        "device": "cpu",
        "corpus": {"path": str(corpus), "min_image_bytes": 0},
        "projector": {"kind": "linear"},
        "episodes": {"shots": [1, 3], "text": "What is it?", "labels": 0.0, "styles": 0.0},
        "optimizer": {"learning_rate": 1e-3},
        "evaluation": {"every": 4, "episodes": 4, "held_out": 0.2},
        "steps": 8,
        "batch_size": 3,
        "batches_per_step": 2,
        "workers": 0,
        "log_every": 1,
        "checkpoint_every": 3,
    }


def run(settings: dict[str, Any], **changes: Any) -> Path:
    """Train in this process; return the run's folder."""
    config = TrainingConfig.model_validate({**settings, **changes})
    assert train(config, show=False).finished
    return config.output


def command(settings: dict[str, Any], tmp_path: Path, *launcher: str) -> list[str]:
    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump(settings))
    return [*(launcher or (sys.executable, "-m", "aim_sdk.cli")), "train", str(path)]


def log(folder: Path) -> list[dict[str, Any]]:
    """What was logged, without what depends on the clock."""
    return [{k: v for k, v in line.items() if k != "tokens_per_second"} for line in read_log(folder)]


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in log(folder) if "loss" in line]


def weights(folder: Path) -> dict[str, Tensor]:
    return safetensors.torch.load_file(folder / "projector" / "projector.safetensors")


def checkpoint(folder: Path, part: str) -> dict[str, Tensor]:
    """The tensors of the last checkpoint."""
    return safetensors.torch.load_file(max((folder / "checkpoints").iterdir()) / f"{part}.safetensors")


def test_a_trained_projector_is_an_artifact_that_answers(settings: dict[str, Any], corpus: Path) -> None:
    folder = run(settings)
    pipe = AIMPipeline.from_pretrained("llava", model=settings["model"], projector=folder / "projector", device="cpu")
    pipe.bank.add([Demonstration(corpus.with_name("0-0.png"), "What is it?", "A red square.")])
    assert isinstance(pipe(corpus.with_name("1-0.png"), "What is it?", max_new_tokens=2), str)
    summary = pipe.projector.summary
    assert summary["steps"] == 8
    assert set(summary["held_out"]) == {"loss", "kl", "names"}
    assert all(set(rows) == set(ROWS) for rows in summary["held_out"].values())
    assert summary["verdict"] in (folder / "projector" / "README.md").read_text()
    saved = re.search(r"^better .* of step (\d+)$", summary["verdict"])
    evaluated = {line["step"]: line["evaluation"] for line in log(folder) if "evaluation" in line}
    assert summary["held_out"] == evaluated[int(saved[1]) if saved else 0]
    assert str(corpus.parent) not in json.dumps(summary)
    assert (folder / "loss.png").stat().st_size > 1000
    assert any((folder / "tensorboard").iterdir())
    logged = log(folder)
    assert [line["step"] for line in logged if "evaluation" in line] == [0, 4, 8]
    for row in FIXED:
        fixed = [[means[row] for means in line["evaluation"].values()] for line in logged if "evaluation" in line]
        assert json.dumps(fixed[0]) == json.dumps(fixed[1]) == json.dumps(fixed[2])
    first = logged[0]["evaluation"]
    assert first["kl"]["aim"] == first["kl"]["start"], "before the first step they are the same"
    assert first["kl"]["teacher"]["mean"] == pytest.approx(0, abs=1e-6)


def test_an_undecodable_image_is_counted_and_skipped(settings: dict[str, Any]) -> None:
    result = train(TrainingConfig.model_validate({**settings, "steps": 12}), show=False)
    assert result.dropped["image cannot be decoded"] > 0


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_as_if_it_had_not_been(settings: dict[str, Any], tmp_path: Path) -> None:
    settings["steps"] = 14
    expected = run(settings, output=str(tmp_path / "whole"))
    settings["workers"] = 1
    folder = Path(settings["output"])
    process = subprocess.Popen(command(settings, tmp_path), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while process.poll() is None and len(losses(folder)) < 5:
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (folder / "projector").exists()
    (folder / "checkpoints" / ".partial-00000099").mkdir(parents=True)
    finished = subprocess.run(command(settings, tmp_path), capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert log(folder) == log(expected)
    assert all(torch.equal(value, weights(folder)[name]) for name, value in weights(expected).items())
    for part in ("projector", "optimizer", "start", "average", "best"):
        assert all(
            torch.equal(value, checkpoint(folder, part)[name]) for name, value in checkpoint(expected, part).items()
        )


@pytest.mark.slow
def test_killed_before_the_first_checkpoint_it_knows_its_start(settings: dict[str, Any]) -> None:
    """What a lost run has logged is not taken for this run's first evaluation."""
    expected = run(settings, output=settings["output"] + "-whole")
    config = TrainingConfig.model_validate(settings)
    folder = run(settings, steps=1, checkpoint_every=100)
    shutil.rmtree(folder / "checkpoints")
    shutil.rmtree(folder / "projector")
    (folder / "config.json").write_text(config.model_dump_json())
    assert [line["step"] for line in log(folder)] == [0, 1, 1]
    assert log(run(settings)) == log(expected)
    states = [json.loads((max((f / "checkpoints").iterdir()) / "state.json").read_text()) for f in (folder, expected)]
    assert states[0]["best"] == states[1]["best"] != None  # noqa: E711


@pytest.mark.slow
def test_ctrl_c_saves_and_the_same_command_goes_on(settings: dict[str, Any], tmp_path: Path) -> None:
    settings["steps"] = 400
    process = subprocess.Popen(command(settings, tmp_path), stderr=subprocess.PIPE, text=True)
    folder = Path(settings["output"])
    while len(losses(folder)) < 2:
        time.sleep(0.02)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted after step" in said
    assert "Traceback" not in said
    last = max((folder / "checkpoints").iterdir())
    assert json.loads((last / "state.json").read_text())["step"] == len(losses(folder))


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(settings: dict[str, Any], tmp_path: Path) -> None:
    _same_as_one_process(settings, tmp_path)


@pytest.mark.slow
def test_a_process_may_have_no_held_out_episode(settings: dict[str, Any], tmp_path: Path) -> None:
    """One episode for two processes: nothing is refused, and both know the same best step."""
    settings["evaluation"]["episodes"] = 1
    _same_as_one_process({**settings, "steps": 4}, tmp_path)


@pytest.mark.slow
def test_a_sharded_backbone_gives_the_same(settings: dict[str, Any], tmp_path: Path) -> None:
    _same_as_one_process({**settings, "shard": True, "recompute_activations": True}, tmp_path)


def _same_as_one_process(settings: dict[str, Any], tmp_path: Path) -> None:
    expected = run(settings, output=str(tmp_path / "one"), shard=False)
    launched = command(settings, tmp_path, *torchrun(), "-m", "aim_sdk.cli")
    finished = subprocess.run(launched, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    folder = Path(settings["output"])
    assert losses(folder) == pytest.approx(losses(expected), abs=1e-5)
    for name, value in weights(expected).items():
        torch.testing.assert_close(weights(folder)[name], value, atol=1e-6, rtol=1e-5)
    states = [json.loads((max((f / "checkpoints").iterdir()) / "state.json").read_text()) for f in (folder, expected)]
    assert all(states[0][name] == states[1][name] for name in ("step", "cursors", "dropped", "episodes"))
    for part in ("projector", "average", "start"):
        ours, theirs = (checkpoint(f, part) for f in (folder, expected))
        for name, value in theirs.items():
            torch.testing.assert_close(ours[name], value, atol=1e-6, rtol=1e-5)
    aim = [
        [line["evaluation"]["kl"]["aim"]["mean"] for line in log(f) if "evaluation" in line] for f in (folder, expected)
    ]
    assert aim[0] == pytest.approx(aim[1], abs=1e-5)


@pytest.mark.slow
def test_recomputed_activations_give_the_same_losses(settings: dict[str, Any], tmp_path: Path) -> None:
    expected = losses(run(settings, output=str(tmp_path / "kept"), steps=4))
    assert losses(run(settings, steps=4, recompute_activations=True)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
def test_from_the_second_epoch_nothing_is_read(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    forward = TransformersReader.run

    def counted(self: TransformersReader, *arguments: Any, **options: Any) -> Any:
        made = forward(self, *arguments, **options)
        reads.append(len(made))
        return made

    monkeypatch.setattr(TransformersReader, "run", counted)
    episodes = {"shots": [3, 3], "text": "What is it?", "labels": 0.0, "styles": 0.0}
    run(settings, steps=30, evaluation={"every": 0}, episodes=episodes, batches_per_step=1)
    # 24 documents of three demonstrations, one of which is not an image; where the second of four epochs begins, two
    # batches are prepared ahead of what is read.
    assert 3 * 20 < sum(reads) <= 3 * 24 - 1 + 2 * 9


@pytest.fixture(scope="module")
def strong(tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random backbone whose attention and logits are large enough for one token to decide another."""
    folder = tmp_path_factory.mktemp("strong") / "llava"
    shutil.copytree(tiny("llava-1.5"), folder)
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    for name, value in weights.items():
        if "lm_head" in name:
            value *= 8
        elif "language_model" in name and ("v_proj" in name or "o_proj" in name):
            value *= 4
    safetensors.torch.save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_learns_one_batch_by_heart(settings: dict[str, Any], corpus: Path, strong: Path, kind: str) -> None:
    pairs = [{"image": f"0-{place}.png", "answer": answer} for place, answer in enumerate("xbgk")]
    only = corpus.with_name("one.jsonl")
    only.write_text(json.dumps({"pairs": pairs}))
    folder = run(
        settings,
        model=str(strong),
        corpus={"path": str(only), "min_image_bytes": 0},
        prompt_format={"kind": "plain", "template": "{image}{text} {answer}"},
        episodes={"shots": [3, 3], "text": "What is it?", "labels": 0.0, "styles": 0.0},
        projector={"kind": kind},
        objective="lm",
        optimizer={"learning_rate": 2e-2, "clip": 10.0, "weight_decay": 0.0},
        evaluation={"every": 0},
        batch_size=1,
        batches_per_step=1,
        steps=150,
        checkpoint_every=1000,
        log_every=50,
    )
    found = losses(folder)
    assert found[-1] < 0.02 < found[0]


def test_memory_that_runs_out_names_the_batch_and_the_setting(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(settings, steps=3, evaluation={"every": 0}, output=settings["output"] + "-before")

    def exhausted(self: Forward, work: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(Forward, "run", exhausted)
    with pytest.raises(TrainingError, match=r"step 1, in a batch of 3 episodes") as raised:
        run(settings, evaluation={"every": 0})
    assert "batch_size (now 3" in str(raised.value)
    assert "recompute_activations=true" in str(raised.value)
    (listed,) = Path(settings["output"]).glob("failed-batch-*.json")
    assert len(json.loads(listed.read_text())) == 3


def test_a_loss_that_is_no_number_stops_before_the_step(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings |= {"evaluation": {"every": 0}, "checkpoint_every": 1}
    divergence, calls = Target.divergence, 0

    def failing(self: Target, logits: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return divergence(self, logits) * (1 if calls < 20 else float("nan"))

    monkeypatch.setattr(Target, "divergence", failing)
    with pytest.raises(TrainingError, match=r"the step was not taken|they were not saved") as raised:
        run(settings, steps=20)
    assert "a smaller optimizer.learning_rate" in str(raised.value)
    last = max((Path(settings["output"]) / "checkpoints").iterdir())
    projector = safetensors.torch.load_file(last / "projector.safetensors")
    assert all(value.isfinite().all() for value in projector.values())


def test_a_folder_of_another_run_is_refused(settings: dict[str, Any]) -> None:
    run(settings, steps=1, evaluation={"every": 0})
    with pytest.raises(TrainingError, match=r"batch_size: 3 there, 2 now"):
        run(settings, steps=1, evaluation={"every": 0}, batch_size=2)


@pytest.mark.parametrize("other", ["weights", "corpus", "evaluation.corpus"])
def test_a_run_does_not_go_on_with_what_others_have_put_behind_its_names(
    settings: dict[str, Any], corpus: Path, tmp_path: Path, other: str
) -> None:
    shutil.copytree(settings["model"], model := tmp_path / "model")
    shutil.copytree(corpus.parent, own := tmp_path / "corpus")
    shutil.copytree(corpus.parent, held_out := tmp_path / "held-out")
    settings |= {"model": str(model), "optimizer": {"learning_rate": 1e-3, "final_rate": 1, "warm_up": 0}}
    settings["corpus"] |= {"path": str(own / "docs.jsonl")}
    settings["evaluation"] |= {"corpus": {"path": str(held_out / "docs.jsonl"), "min_image_bytes": 0}}
    before = weights(run(settings, steps=1))
    if other == "weights":
        tensors = safetensors.torch.load_file(model / "model.safetensors")
        changed = {name: value * 1.5 if "lm_head" in name else value for name, value in tensors.items()}
        safetensors.torch.save_file(changed, model / "model.safetensors", metadata={"format": "pt"})
    else:
        path = (own if other == "corpus" else held_out) / "docs.jsonl"
        path.write_text(path.read_text().replace("A red", "A bad", 1))
    name = {"weights": "the backbone", "corpus": "the corpus's files"}.get(other, "the files of evaluation.corpus")
    with pytest.raises(TrainingError, match=name):
        run(settings, steps=2)
    assert all(torch.equal(value, before[name]) for name, value in weights(Path(settings["output"])).items())


@pytest.mark.parametrize("every", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_a_finished_run_of_one_rate_is_prolonged_exactly(settings: dict[str, Any], tmp_path: Path, every: int) -> None:
    """Also if the shorter run ends with an evaluation that the longer one does not have."""
    settings["optimizer"] = {"learning_rate": 1e-3, "final_rate": 1, "warm_up": 0}
    settings["evaluation"]["every"] = every
    whole = run(settings, output=str(tmp_path / "whole"), steps=4)
    short = run(settings, steps=2)
    assert json.loads((short / "projector" / "projector_config.json").read_text())["training"]["steps"] == 2
    assert run(settings, steps=4) == short
    assert log(short) == log(whole)
    assert all(torch.equal(value, weights(short)[name]) for name, value in weights(whole).items())
    with pytest.raises(TrainingError, match="4 steps were taken already"):
        run(settings, steps=3)
    with pytest.raises(TrainingError, match="steps: 4 there, 5 now"):
        run(settings, steps=5, seed=1)


def test_a_run_whose_rate_falls_is_not_prolonged_but_started_from(settings: dict[str, Any], tmp_path: Path) -> None:
    settings["evaluation"]["every"] = 0
    folder = run(settings, steps=1)
    with pytest.raises(TrainingError, match="its learning rate falls over its steps") as refused:
        run(settings, steps=2)
    assert f"projector.start={folder / 'projector'}" in str(refused.value)
    start = {"start": str(folder / "projector")}
    again = run(settings, projector=start, output=str(tmp_path / "again"), steps=1)
    assert not torch.equal(weights(again)["linear.weight"], weights(folder)["linear.weight"])
    with pytest.raises(InputError, match=r"projector\.kind: linear there, carrier here"):
        run(settings, projector={**start, "kind": "carrier"}, output=str(tmp_path / "other"))


def test_layers_and_options_of_the_command_line_are_in_card_and_settings(
    settings: dict[str, Any], tmp_path: Path, call_cli: CalledCli
) -> None:
    settings |= {"steps": 1, "evaluation": {"every": 0}, "projector": {"kind": "carrier"}}
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(settings))
    for number, layers in enumerate(("[1,-1]", "1,-1")):
        out = tmp_path / f"run-{number}"
        changes = [f"projector.layers={layers}", "projector.options.place=before", f"output={out}"]
        done = call_cli("train", str(tmp_path / "train.yaml"), *changes)
        assert done.returncode == 0, done.stderr
        assert "layers 1, -1; place=before" in (out / "projector" / "README.md").read_text()
        kept = json.loads((out / "projector" / "projector_config.json").read_text())
        assert (kept["layers"], kept["options"]) == ([1, -1], {"place": "before"})
    wrong = call_cli("train", str(tmp_path / "train.yaml"), "projector.layers=9,-1", f"output={tmp_path / 'wrong'}")
    assert "layer 9: this backbone has 2 decoder layers" in wrong.stderr


def test_a_corpus_too_small_to_hold_anything_out_says_so(
    settings: dict[str, Any], corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = corpus.with_name("few.jsonl")
    few.write_text("\n".join(corpus.read_text().splitlines()[:3]))
    settings |= {"corpus": {"path": str(few), "min_image_bytes": 0}, "evaluation": {"every": 1}, "steps": 1}
    config = TrainingConfig.model_validate(settings)
    assert train(config).finished
    said = capsys.readouterr().err
    assert "no held-out evaluation: of 3 documents" in said
    assert "nan" not in said
    assert not any("evaluation" in line for line in read_log(config.output))


@pytest.mark.parametrize("evaluation", [{"every": 0}, {"every": 1}, {"every": 1, "held_out": 0.2}])
def test_a_corpus_of_small_pictures_is_cured_before_anything_is_loaded(
    settings: dict[str, Any], evaluation: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starting, "load", None)
    del settings["corpus"]["min_image_bytes"]
    cure = r"gives no episode.*Next: a smaller corpus\.min_image_bytes \(image smaller than 10240 bytes\)"
    with pytest.raises(InputError, match=cure):
        run(settings, evaluation=evaluation)
    assert not os.path.exists(settings["output"]), "a run that cannot begin makes no folder"


def test_a_small_evaluation_corpus_is_cured_where_it_is_named(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starting, "load", None)
    own = {"every": 1, "corpus": {"path": settings["corpus"]["path"]}}
    with pytest.raises(InputError, match=r"Next: a smaller evaluation\.corpus\.min_image_bytes"):
        run(settings, evaluation=own)


def test_a_backbone_that_cannot_be_loaded_makes_no_folder(settings: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(AIMError):
        run(settings, model=str(tmp_path / "nowhere"))
    assert not os.path.exists(settings["output"])


def test_two_jobs_do_not_share_a_folder(settings: dict[str, Any]) -> None:
    with alone(Path(settings["output"]) / ".lock"), pytest.raises(ArtifactWriteError, match="another job is writing"):
        run(settings, steps=1, evaluation={"every": 0})
    assert os.listdir(settings["output"]) == [".lock"]
    run(settings, steps=1, evaluation={"every": 0})


@pytest.mark.slow
def test_a_full_disk_is_a_message_and_the_run_goes_on_from_its_checkpoint(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches what is raised raw wherever a run writes: checkpoints, the log, the plot, the projector."""
    small: dict[str, Any] = {
        "steps": 4,
        "checkpoint_every": 2,
        "evaluation": {"every": 2, "episodes": 2, "held_out": 0.2},
    }
    whole = run(settings, **small, output=str(Path(settings["output"]) / "whole"))
    fsync, output, seen = os.fsync, Path(settings["output"]) / "cut", 0

    def full_after(number: int) -> Callable[[int], None]:
        count = 0

        def sync(handle: int) -> None:
            nonlocal count
            count += 1
            if count > number:
                raise OSError(28, "No space left on device")
            fsync(handle)

        return sync

    for number in range(0, 60, 7):
        monkeypatch.setattr(os, "fsync", full_after(number))
        with contextlib.suppress(ArtifactWriteError):
            run(settings, **small, output=str(output))
            break
        seen += 1
    monkeypatch.setattr(os, "fsync", fsync)
    assert seen > 1
    run(settings, **small, output=str(output))
    assert losses(output) == losses(whole)
    assert all(torch.equal(weights(output)[name], value) for name, value in weights(whole).items())


def test_new_names_and_styles_train_too(settings: dict[str, Any]) -> None:
    folder = run(settings, steps=3, episodes={"shots": [2, 3], "labels": 0.5, "styles": 0.5, "text": "What is it?"})
    assert len(losses(folder)) == 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("objective=distil", "Did you mean 'distill'"),
        ("objective.teacher=caption", "Did you mean 'captions'"),
        ("objective.weights={}", "at least 1"),
        ("objective.weights={lm: -1}", "greater than 0"),
        ("objective.weights.lm=0.1", "{distill: 1, lm: 0.1}"),
        ("optimizer.weight_decay=.inf", "finite number"),
        ("optimizer.weight_decay=2000", "every step would go all the way back to the start"),
        ("optimizer.betas=[1, 1]", "less than 1"),
        ("seed=99999999999999999999999", "less than 9223372036854775808"),
        ("episodes={labels: 1, styles: 0.1}", "labels 1.0 and styles 0.1"),
        ("optimizer.learning_rate=1e38", "less than or equal to 10"),
        ("projector.rank=0", "greater than or equal to 1"),
        ("backend=lava", "Did you mean 'llava'"),
        ("projector.kind=lineal", "Did you mean 'linear'"),
        ("optimizer.learing_rate=1", "Did you mean 'learning_rate'"),
        ("corpus.path=nowhere", "nowhere"),
        ("batch_size=none", "batch_size"),
        ("episodes.shots=[4, 2]", "fewest"),
        ("episodes.shots=[9, 9]", "gives no episode"),
        ("projector.start=nowhere", "nowhere"),
        ("steps", "expected name=value"),
    ],
)
def test_a_user_error_is_a_message(
    settings: dict[str, Any], tmp_path: Path, call_cli: CalledCli, change: str, said: str
) -> None:
    *_, path = command(settings, tmp_path)
    result = call_cli("train", path, "evaluation.every=0", change)
    assert result.returncode == 1
    assert said in result.stderr
    assert "Traceback" not in result.stderr
