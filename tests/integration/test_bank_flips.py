"""Flipped bytes: in the index, in its log after a kill, in every segment, and in two of them at once."""

import random
import shutil
from collections import Counter
from pathlib import Path

import pytest

from aim_sdk.bank.disk import segments
from tests.bank_attacks import SMALL, State, flip, history, judge


@pytest.fixture
def states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[State]:
    """The bank is open while its folder is copied: as after a kill, the last commits are in the log."""
    monkeypatch.setattr(segments, "SEGMENT_BYTES", SMALL)
    return history(tmp_path / "bank", tmp_path / "copies", rounds=2)


COUNTS = [3, pytest.param(150, marks=pytest.mark.slow)]


def attack(tmp_path: Path, state: State, kinds: tuple[str, ...], flips: int, seed: int) -> Counter[str]:
    dice, counts = random.Random(seed), Counter[str]()
    for number in range(flips):
        path = tmp_path / "flipped"
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(state.folder, path)
        what = []
        for kind in kinds:
            file = dice.choice(sorted(path.glob(kind)))
            place, bit = dice.randrange(file.stat().st_size), 1 << dice.randrange(8)
            flip(file, place, bit)
            what.append((file.name, place, bit))
        only_index = not any(kind.startswith("segment") for kind in kinds)
        verdict = judge(path, state.content, rebuilt=state.content if only_index else None)
        assert not verdict.is_silent, (number, what, verdict.steps, verdict.messages)
        counts.update(verdict.steps.values())
    return counts


@pytest.mark.parametrize("flips", COUNTS)
@pytest.mark.parametrize(
    "kinds",
    [
        ("bank.sqlite",),
        ("bank.sqlite-wal",),
        ("segment-*.aim",),
        ("bank.sqlite", "segment-*.aim"),
        ("bank.sqlite-wal", "segment-*.aim"),
        ("segment-*.aim", "segment-*.aim"),
        ("bank.sqlite", "bank.sqlite-wal"),
    ],
    ids=" and ".join,
)
def test_flipped_bytes_hide_nothing(tmp_path: Path, states: list[State], kinds: tuple[str, ...], flips: int) -> None:
    for place, state in enumerate((states[-1], states[-3], states[4])):
        attack(tmp_path, state, kinds, flips // 3, place)
