"""A checkpoint is whole or not there, and a run resumes from it as if nothing had happened."""

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from aim_sdk.errors import CorruptArtifactError
from aim_sdk.projectors import LinearNormProjector
from aim_sdk.training import TrainingConfig, checkpoint
from aim_sdk.training.average import copied
from aim_sdk.training.checkpoint import TrainingState
from aim_sdk.training.corpora import Cursor
from aim_sdk.training.estimates import Estimate
from aim_sdk.training.learner import Learner
from aim_sdk.training.verdict import Best
from aim_sdk.types import Vocabulary
from tests.banks import fingerprint

CONFIG = TrainingConfig.model_validate(
    {"output": "run", "backend": "llava", "corpus": {"path": "docs"}, "optimizer": {"learning_rate": 0.01}, "steps": 20}
)
PARTS = ("projector", "optimizer", "start", "average", "best")
FILES = [f"{part}.safetensors" for part in PARTS]


def learner(seed: int = 0, embedding: int = 4) -> Learner:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 6, "embedding_size": embedding}
    made = fingerprint().model_copy(update=sizes)
    projector = LinearNormProjector(6, embedding).requires_grad_()
    vocabulary = Vocabulary(torch.zeros(9, embedding), torch.zeros(9, 6), made)
    return Learner(projector, copied(projector, vocabulary), vocabulary, CONFIG)


def step(made: Learner, number: int) -> None:
    """One step of training; what is learnt depends on its number alone."""
    assert isinstance(made.projector, LinearNormProjector)
    made.set_rate(number)
    shown = torch.randn(5, 6, generator=torch.Generator().manual_seed(number))
    made.projector.norm(made.projector.linear(shown)).square().sum().backward()
    made.step(number)
    if number == 2:
        made.keep_best()


def trained(steps: int, seed: int = 0) -> Learner:
    made = learner(seed)
    for number in range(1, steps + 1):
        step(made, number)
    return made


def everything(made: Learner) -> dict[str, Tensor]:
    """All numbers of a projector, its optimizer, and what is kept of its weights."""
    return {f"{part}.{name}": value for part, tensors in made.parts().items() for name, value in tensors.items()}


def assert_equal(one: Learner, other: Learner) -> None:
    ours, theirs = everything(one), everything(other)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert value.dtype == theirs[name].dtype, name
        assert torch.equal(value, theirs[name]), name


def save(output: Path, made: Learner, number: int, keep: int = 2) -> Path:
    return checkpoint.save(output, TrainingState(step=number), made.parts(), keep=keep)


def names(output: Path) -> list[str]:
    return sorted(os.listdir(output / "checkpoints"))


@pytest.mark.parametrize("steps", [0, 1, 7])
def test_going_on_from_a_checkpoint_equals_no_interruption(tmp_path: Path, steps: int) -> None:
    made = trained(steps)
    state = TrainingState(step=steps, cursors={0: (2, 5), 3: (1, 0)}, dropped={"no text": 4}, episodes=12, tokens=345)
    folder = checkpoint.save(tmp_path, state, made.parts(), keep=2)
    assert folder.name == f"step-{steps:08}"
    again = trained(2, seed=1)  # what was there before does not matter
    assert checkpoint.load(tmp_path, again) == state
    assert state.cursor_of() == {0: Cursor(2, 5), 3: Cursor(1, 0)}
    assert_equal(made, again)
    for number in range(steps + 1, steps + 4):
        step(made, number)
        step(again, number)
        assert_equal(made, again)


def test_what_a_run_does_behind_a_checkpoint_does_not_change_it(tmp_path: Path) -> None:
    made = trained(3)
    save(tmp_path, made, 3)
    step(made, 4)
    again = learner()
    checkpoint.load(tmp_path, again)
    assert_equal(again, trained(3))


def test_without_a_checkpoint_nothing_is_taken_over(tmp_path: Path) -> None:
    made = trained(2)
    assert checkpoint.load(tmp_path, made) == TrainingState() == checkpoint.load(tmp_path / "not there", made)
    assert_equal(made, trained(2))


@pytest.mark.parametrize("keep", [1, 2, 3, 9])
def test_the_last_checkpoints_are_kept(tmp_path: Path, keep: int) -> None:
    made = learner()
    steps = [2, 9, 10, 200]
    for number in steps:
        save(tmp_path, made, number, keep)
    assert names(tmp_path) == [f"step-{number:08}" for number in steps[-keep:]]
    assert checkpoint.load(tmp_path, made).step == 200


def test_what_an_interrupted_save_leaves_is_ignored_and_removed(tmp_path: Path) -> None:
    made = trained(1)
    left = save(tmp_path, trained(5), 5)
    left.rename(left.with_name(".partial-00000005"))
    assert checkpoint.load(tmp_path, learner()) == TrainingState()
    save(tmp_path, made, 1)
    assert names(tmp_path) == ["step-00000001"]
    again = learner()
    assert checkpoint.load(tmp_path, again).step == 1
    assert_equal(made, again)


@pytest.mark.parametrize("file", [*FILES, "state.json"])
def test_a_save_that_fails_leaves_the_checkpoints_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    made = trained(1)
    save(tmp_path, made, 1)
    write = checkpoint.write_atomic

    def failing(path: Path, data: bytes) -> None:
        if path.name == file:
            raise OSError(28, "No space left on device")
        write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_atomic", failing)
        with pytest.raises(OSError, match="No space"):
            save(tmp_path, trained(2), 2, keep=1)
    again = learner()
    assert checkpoint.load(tmp_path, again).step == 1
    assert_equal(made, again)
    save(tmp_path, trained(2), 2, keep=1)
    assert names(tmp_path) == ["step-00000002"]


def test_a_checkpoint_that_is_there_stays(tmp_path: Path) -> None:
    first = trained(3)
    for made in (first, trained(3, seed=1)):
        save(tmp_path, made, 3, keep=1)
        again = learner()
        checkpoint.load(tmp_path, again)
        assert_equal(first, again)
    assert names(tmp_path) == ["step-00000003"]


@pytest.mark.parametrize("file", FILES)
def test_a_changed_byte_is_seen(tmp_path: Path, file: str) -> None:
    folder = save(tmp_path, trained(2), 2)
    data = (folder / file).read_bytes()
    for place in range(0, len(data), 37):
        (folder / file).write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(CorruptArtifactError, match="not as it was written"):
            checkpoint.load(tmp_path, learner())


@pytest.mark.parametrize("file", [*FILES, "state.json"])
def test_a_cut_or_missing_file_is_named(tmp_path: Path, file: str) -> None:
    save(tmp_path, trained(1), 1)
    folder = save(tmp_path, trained(2), 2)
    data = (folder / file).read_bytes()
    cuts: list[int | None] = [*range(0, len(data) - 1, 29), len(data) - 3, None]  # the last byte of JSON is a new line
    for cut in cuts:
        (folder / file).unlink()
        if cut is not None:
            (folder / file).write_bytes(data[:cut])
        with pytest.raises(CorruptArtifactError) as raised:
            checkpoint.load(tmp_path, learner())
        said = str(raised.value)
        assert str(folder) in said
        assert "The one before it is step-00000001." in said
        assert f"Next: delete {folder}." in said
        (folder / file).write_bytes(data)
    assert checkpoint.load(tmp_path, learner()).step == 2


def test_a_checkpoint_of_another_projector_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path, trained(1), 1)
    with pytest.raises(CorruptArtifactError) as raised:
        checkpoint.load(tmp_path, learner(embedding=5))
    assert str(folder) in str(raised.value)
    assert "before it" not in str(raised.value)


def test_the_best_evaluation_comes_back_with_what_is_not_a_number(tmp_path: Path) -> None:
    """One held-out episode has no standard error."""
    best = Best(step=2, kl=0.5, closer=Estimate(0.1, float("nan"), 1), names=Estimate(float("nan"), float("nan"), 0))
    checkpoint.save(tmp_path, TrainingState(step=3, best=best), learner().parts(), keep=1)
    loaded = checkpoint.load(tmp_path, learner()).best
    assert str(loaded) == str(best)
    assert loaded is not None
    assert not loaded.better
