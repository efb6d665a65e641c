"""Indexes from another time than the segments beside them, and folders that are not what they were."""

import os
import random
import shutil
from pathlib import Path

import pytest

from aim_sdk import DemonstrationBank
from aim_sdk.bank.disk import segments
from aim_sdk.bank.disk.maintenance import rebuild_index
from aim_sdk.errors import AIMError, ArtifactNotFoundError
from tests.bank_attacks import SMALL, State, Verdict, flip, history, item, judge, put_index, read
from tests.banks import CountingEncoder, open_bank


@pytest.fixture
def states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[State]:
    monkeypatch.setattr(segments, "SEGMENT_BYTES", SMALL)
    return history(tmp_path / "bank", tmp_path / "copies")


def mixed(tmp_path: Path, files: State, index: State, *, log: bool) -> Path:
    path = tmp_path / "mixed"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(files.folder, path)
    put_index(index.folder, path, log=log)
    return path


def check(verdict: Verdict, what: object) -> None:
    assert not verdict.is_silent, (what, verdict.steps, verdict.messages)


@pytest.mark.parametrize("share", [0.04, pytest.param(0.5, marks=pytest.mark.slow)])
def test_an_older_index_never_hides_anything(tmp_path: Path, states: list[State], share: float) -> None:
    """Each old index beside each later state of the segments, with its log and without: all comes back."""
    dice = random.Random(0)
    for later in range(len(states)):
        for older in range(later + 1):
            for log in (True, False):
                if dice.random() < share:
                    path = mixed(tmp_path, states[later], states[older], log=log)
                    content = states[later].content
                    check(judge(path, content, rebuilt=content), (later, older, log))


@pytest.mark.parametrize("share", [0.04, pytest.param(0.5, marks=pytest.mark.slow)])
def test_an_index_newer_than_the_segments_names_what_is_missing(
    tmp_path: Path, states: list[State], share: float
) -> None:
    dice = random.Random(1)
    for later in range(len(states)):
        for older in range(later):
            if dice.random() < share:
                path = mixed(tmp_path, states[older], states[later], log=True)
                check(judge(path, states[later].content), (later, older))


def test_a_lost_log_loses_nothing(tmp_path: Path, states: list[State]) -> None:
    for number, state in enumerate(states):
        path = mixed(tmp_path, state, state, log=False)
        check(judge(path, state.content, rebuilt=state.content), number)


def test_a_segment_that_is_put_back_after_a_rebuild_takes_nothing_with_it(tmp_path: Path) -> None:
    """The last write is damaged and the index lost; later the whole segment comes back from a backup."""
    path = tmp_path / "bank"
    with open_bank(CountingEncoder(), path) as bank:
        for name in "abc":
            bank.add([item(name)])
    (file,) = path.glob("segment-*.aim")
    whole = file.read_bytes()
    flip(file, len(whole) - 3)
    (path / "bank.sqlite").unlink()
    assert rebuild_index(path), "the last write is damaged, and that is said"
    with open_bank(CountingEncoder(), path) as bank:
        bank.add([item("new")])
    file.write_bytes(whole)
    with DemonstrationBank.open(path) as bank:
        problems = bank.verify()
    lost = {"a", "b", "new"} - read(path).keys()
    assert not lost
    problems += rebuild_index(path)
    assert not {"a", "b", "new"} - read(path).keys(), "what was acknowledged stays"
    assert "c" in read(path) or problems


def test_a_flipped_byte_at_the_end_of_a_compaction_costs_no_demonstration(tmp_path: Path) -> None:
    for lost in (False, True):
        path = tmp_path / f"bank {lost}"
        with open_bank(CountingEncoder(), path) as bank:
            bank.add([item(name) for name in "abcdef"])
            bank.compact()
        (file,) = path.glob("segment-*.aim")
        flip(file, file.stat().st_size - 5)
        if lost:
            (path / "bank.sqlite").unlink()
        assert rebuild_index(path), "said"
        assert list(read(path)) == list("abcdef")


# --- folders ----------------------------------------------------------------------------------------------------------


def test_a_relative_path_leads_to_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with open_bank(CountingEncoder(), Path("bank")) as bank:
        bank.add([item("a")])
        os.chdir(tmp_path / "elsewhere")
        bank.add([item("b")])
        bank.compact()
        assert list(read(tmp_path / "bank")) == ["a", "b"]
        assert bank.verify() == []
    assert not any((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("what", ["moved", "deleted", "made again", "another bank", "another bank's files", "linked"])
def test_another_folder_under_an_open_bank_is_refused(tmp_path: Path, what: str) -> None:
    path, other = tmp_path / "bank", tmp_path / "other"
    with open_bank(CountingEncoder("other"), other) as bank:
        bank.add([item("o")])
    with open_bank(CountingEncoder(), tmp_path / "real") as bank:
        bank.add([item("a")])
    path.symlink_to(tmp_path / "real") if what == "linked" else (tmp_path / "real").rename(path)
    bank = open_bank(CountingEncoder(), path)
    entry = bank[next(iter(bank))]
    match what:
        case "moved":
            path.rename(tmp_path / "moved")
        case "deleted":
            shutil.rmtree(path)
        case "made again":
            shutil.rmtree(path)
            path.mkdir()
        case "another bank":
            path.rename(tmp_path / "moved")
            shutil.copytree(other, path)
        case "another bank's files":
            for file in path.iterdir():
                file.unlink()
            for file in other.iterdir():
                shutil.copy(file, path)
        case "linked":
            path.unlink()
            path.symlink_to(other)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file() and file.suffix == ".aim"}
    for act in (
        lambda: bank.add([item("b")]),
        lambda: bank.compact(),
        lambda: list(bank),
        lambda: len(bank),
        lambda: bank.view().entries,
        lambda: bank.stats(),
        lambda: entry.fused,
        lambda: bank.remove(entry.key),
        lambda: bank.view().features("reading"),
        lambda: bank.verify(),
    ):
        with pytest.raises(AIMError):
            act()
    bank.close()
    after = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file() and file.suffix == ".aim"}
    assert after == before
    if what == "moved":
        assert list(read(tmp_path / "moved")) == ["a"]
    if what == "another bank":
        assert list(read(path)) == ["o"]


def test_a_linked_folder_is_a_bank(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with (
        open_bank(CountingEncoder(), tmp_path / "link") as bank,
        open_bank(CountingEncoder(), tmp_path / "real") as two,
    ):
        bank.add([item("a")])
        two.add([item("b")])
        bank.compact()
        two.add([item("c")])
        assert list(read(tmp_path / "link")) == ["a", "b", "c"]
    assert rebuild_index(tmp_path / "link") == []


@pytest.mark.parametrize("name", ["a\0b", "x" * 300, "\ud83d", "file/bank", "no/such/place", "loop"])
def test_paths_that_can_be_no_bank_are_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    path = Path(f"{tmp_path}/{name}")
    for act in (DemonstrationBank.open, rebuild_index):
        with pytest.raises(ArtifactNotFoundError):
            act(path)
    if name != "no/such/place":
        with pytest.raises(AIMError):
            open_bank(CountingEncoder(), path)
