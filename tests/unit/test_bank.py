from collections.abc import Sequence

import pytest
import torch
from PIL import Image

from aim_sdk import Demonstration, DemonstrationBank, FusedTokens
from aim_sdk.errors import InputError, ShotsError


class Encoder:
    """Counts what it encodes; fails on the answer "bad"."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, demonstrations: Sequence[Demonstration]) -> list[FusedTokens]:
        if any(item.answer == "bad" for item in demonstrations):
            raise InputError("bad")
        self.batches.append(len(demonstrations))
        return [FusedTokens(torch.full((len(item.answer), 2), 1.0)) for item in demonstrations]


@pytest.fixture
def items(pictures: list[Image.Image]) -> list[Demonstration]:
    return [Demonstration(picture, "What?", f"answer {i}") for i, picture in enumerate(pictures)]


def test_adding_again_reads_nothing(items: list[Demonstration]) -> None:
    encoder = Encoder()
    bank = DemonstrationBank(encoder, "scope")
    keys = bank.add([*items[:3], items[0]])
    assert keys[0] == keys[3]
    assert bank.add(items[:3]) == keys[:3]
    assert encoder.batches == [3]
    assert [entry.demonstration for entry in bank] == items[:3]
    assert len(bank) == 3
    assert items[0] in bank
    assert items[4] not in bank


def test_keys_depend_on_content_and_scope(items: list[Demonstration]) -> None:
    bank = DemonstrationBank(Encoder(), "scope")
    same = Demonstration(items[0].image, "What?", "answer 0")
    assert bank.key(same) == bank.key(items[0])
    others = [
        items[1],
        Demonstration(items[0].image, "Who?", "answer 0"),
        Demonstration(items[0].image, "What?", "other"),
        Demonstration(items[0].image, "What?answer 0", " "[:0] + "x"),
    ]
    assert len({bank.key(item) for item in [items[0], *others]}) == 5
    assert DemonstrationBank(Encoder(), "other").key(items[0]) != bank.key(items[0])


def test_batches_before_a_failure_are_kept(items: list[Demonstration]) -> None:
    bank = DemonstrationBank(Encoder(), "scope")
    with pytest.raises(InputError):
        bank.add([*items[:4], Demonstration(items[5].image, "", "bad")], batch_size=2)
    assert len(bank) == 4


def test_first_and_remove(items: list[Demonstration]) -> None:
    bank = DemonstrationBank(Encoder(), "scope")
    keys = bank.add(items[:3])
    bank.remove(keys[0])
    assert [entry.demonstration for entry in bank.first(2)] == items[1:3]
    with pytest.raises(ShotsError, match="3 shots asked for, but the bank holds 2"):
        bank.first(3)
    with pytest.raises(KeyError):
        bank.remove(keys[0])


def test_only_demonstrations_enter() -> None:
    with pytest.raises(InputError, match="got str"):
        DemonstrationBank(Encoder(), "scope").add(["a.jpg"])  # type: ignore[list-item]
