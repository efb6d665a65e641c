"""Copies of a bank that is being written and compacted: each is a bank, or says that it is none."""

import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from aim_sdk import DemonstrationBank
from aim_sdk.bank.disk import segments
from aim_sdk.bank.disk.maintenance import rebuild_index
from aim_sdk.errors import AIMError
from tests.bank_attacks import SMALL, item, key_of, read
from tests.bank_processes import KEPT, kept_bank, opens, running
from tests.banks import CountingEncoder, open_bank


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(segments, "SEGMENT_BYTES", SMALL)
    return kept_bank(tmp_path)


@pytest.mark.parametrize("copies", [4, pytest.param(75, marks=pytest.mark.slow)])
@pytest.mark.parametrize("by", ["copytree", "cp"])
def test_a_copy_of_a_live_bank_is_a_bank_or_says_that_it_is_not(
    tmp_path: Path, path: Path, by: str, copies: int
) -> None:
    counts: Counter[str] = Counter()

    def slowly(path: Path) -> Iterator[None]:
        with open_bank(CountingEncoder(), path) as bank:
            for number in range(10**9):
                bank.add([item(f"new {number % 60}")])
                if number % 9 == 8:
                    bank.remove(*(key_of(bank, f"new {n % 60}") for n in range(number - 8, number - 2)))
                if number % 27 == 26:
                    bank.compact()
                yield

    with running(path, [slowly, opens], tmp_path / "said"):
        for number in range(copies):
            copy = tmp_path / f"copy {number}"
            if by == "cp":
                subprocess.run(["cp", "-r", path, copy], stderr=subprocess.DEVNULL, check=False)
            else:
                with suppress(shutil.Error):  # a segment that a compaction has deleted meanwhile
                    shutil.copytree(path, copy)
            counts[examined(copy)] += 1
            shutil.rmtree(copy, ignore_errors=True)
    print(by, dict(counts))


def examined(copy: Path) -> str:
    """Read, write to, verify and rebuild a copy: what was there before it began is there, or damage is named."""
    said = []

    def missing() -> set[str]:
        return set(KEPT) - read(copy).keys()

    try:
        assert not missing(), "silent"
    except AIMError as error:
        said.append(str(error))
    try:
        with open_bank(CountingEncoder(), copy) as bank:
            bank.add([item("one more")])
        assert not missing(), "silent"
        assert "one more" in read(copy)
    except AIMError as error:
        said.append(str(error))
    try:
        with DemonstrationBank.open(copy) as bank:
            problems = bank.verify()
    except AIMError as error:
        problems = [str(error)]
    assert problems or not said, said
    try:
        problems = rebuild_index(copy)
        assert not missing() or problems, "silent"
    except AIMError as error:
        said.append(str(error))
    return "named" if said or problems else "whole"
