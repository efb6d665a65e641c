"""An interrupted ``add`` that is run again leads to the order of one that was never interrupted."""

import itertools
import os
import random
import signal
from pathlib import Path

import pytest

from aim_sdk import Demonstration, DemonstrationBank
from aim_sdk.bank import collection
from aim_sdk.errors import InputError
from tests.bank_attacks import IMAGE, item
from tests.banks import CountingEncoder, open_bank


@pytest.fixture(params=["memory", "disk"])
def path(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path | None:
    monkeypatch.setattr(collection, "WINDOW", 6)
    return tmp_path / "bank" if request.param == "disk" else None


def answers(bank: DemonstrationBank) -> list[str]:
    return [entry.demonstration.answer for entry in bank.values()]


class Files:
    """Demonstrations with a file each, which can be broken."""

    def __init__(self, folder: Path, count: int) -> None:
        self.names = [f"{number:02}" for number in range(count)]
        self.folder = folder
        folder.mkdir()
        self.mend()

    def items(self) -> list[Demonstration]:
        return [Demonstration(self.folder / f"{name}.png", "t", name) for name in self.names]

    def mend(self) -> None:
        for number, name in enumerate(self.names):
            IMAGE.resize((2 + number, 2)).save(self.folder / f"{name}.png")

    def break_(self, *places: int) -> None:
        for place in places:
            (self.folder / f"{self.names[place]}.png").write_bytes(b"broken")


@pytest.mark.parametrize("raising", [True, False], ids=["raised", "reported"])
def test_broken_images_that_are_mended_take_their_places(tmp_path: Path, path: Path | None, raising: bool) -> None:
    """Every one and every two of 14, in windows of 6: the first one, the last one, and a whole window's first too."""
    for number, broken in enumerate([*itertools.combinations(range(14), 1), (0, 1), (5, 6), (0, 13), (3, 8), (12, 13)]):
        files = Files(tmp_path / f"files {number}", 14)
        bank = open_bank(CountingEncoder(batch=2), path and tmp_path / f"bank {number}")
        files.break_(*broken)
        if raising:
            with pytest.raises(InputError):
                bank.add(files.items())
        else:
            bank.add(files.items(), on_error=lambda *_: None)
            assert answers(bank) == [name for place, name in enumerate(files.names) if place not in broken]
        files.mend()
        bank.add(files.items())
        assert answers(bank) == files.names, broken
        bank.add([item("new"), *files.items()[:2], item("newer")])
        assert answers(bank) == [*files.names, "new", "newer"], "what is new comes last"
        bank.close()


class Stopped(BaseException):
    pass


class Stopping(CountingEncoder):
    """Computes batches in another order than given, as by length, and is stopped after some."""

    def __init__(self, seed: int, batches: int) -> None:
        super().__init__(batch=2)
        self.dice, self.batches = random.Random(seed), batches

    def stream(self, demonstrations, **options):  # type: ignore[no-untyped-def]
        made = list(super().stream(demonstrations, **options))
        self.dice.shuffle(made)
        for batch in made:
            if self.batches == 0:
                raise Stopped
            self.batches -= 1
            yield batch


@pytest.mark.parametrize("seed", range(6))
def test_stops_at_random_lead_to_the_given_order(tmp_path: Path, path: Path | None, seed: int) -> None:
    dice = random.Random(seed)
    given = [item(f"{number:02}") for number in range(20)]
    memory = open_bank(Stopping(seed, 0), None)
    finished = False
    while not finished:
        bank = memory if path is None else open_bank(Stopping(seed, 0), path)
        bank._encoder = Stopping(dice.randrange(99), dice.randrange(4))  # type: ignore[assignment]
        try:
            bank.add(given)
            finished = True
        except Stopped:
            pass
        if path is not None and not finished and dice.random() < 0.3 and answers(bank):
            assert bank.verify() == []
        if finished:
            assert answers(bank) == [item_.answer for item_ in given]
            bank._encoder = CountingEncoder(batch=2)  # type: ignore[assignment]
            bank.add([item("after"), *given, item("and after")])
            assert answers(bank) == [*(item_.answer for item_ in given), "after", "and after"]
        if path is not None:
            bank.close()


@pytest.mark.parametrize("seed", range(2))
def test_kills_lead_to_the_given_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr(collection, "WINDOW", 6)
    given, path = [item(f"{number:02}") for number in range(20)], tmp_path / "bank"
    for batches in itertools.cycle((1, 2, 0)):
        child = os.fork()
        if child == 0:
            try:
                with open_bank(Stopping(seed, batches), path) as bank:
                    bank.add(given)
                os._exit(0)
            except Stopped:
                os.kill(os.getpid(), signal.SIGKILL)
            finally:
                os._exit(1)
        status = os.waitpid(child, 0)[1]
        if status == 0:
            break
        assert os.WIFSIGNALED(status)
        if batches == 0:
            with open_bank(CountingEncoder(batch=2), path) as bank:
                bank.add(given)
    with DemonstrationBank.open(path) as bank:
        assert answers(bank) == [item_.answer for item_ in given]
