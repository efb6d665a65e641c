"""What attacks on a bank share: a long script of changes, and a judge who finds what is missing without a word."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from aim_sdk import Demonstration, DemonstrationBank
from aim_sdk.bank.disk.maintenance import rebuild_index
from aim_sdk.errors import AIMError
from tests.banks import CountingEncoder, fused_of, open_bank

IMAGE = Image.new("RGB", (2, 2))
SMALL = 1500
"""Bytes of a segment: a few records."""

Content = dict[str, dict[str, object]]
"""Metadata by answer, in order."""


def item(answer: str, **metadata: object) -> Demonstration:
    return Demonstration(IMAGE, "t", answer, metadata)  # type: ignore[arg-type]


def key_of(bank: DemonstrationBank, answer: str) -> str:
    return bank.key(item(answer))


def changes(bank: DemonstrationBank, content: Content, rounds: int = 3) -> Iterator[str]:
    """Change a bank in every way, and what it should hold with it; yield after each change."""
    for turn in range(rounds):
        new = [f"{turn} {name}" for name in "abcdefg"]
        bank.add([item(answer) for answer in new])
        content.update({answer: {} for answer in new})
        yield "add"
        bank.tag(key_of(bank, new[1]), label=turn)
        content[new[1]] = {"label": turn}
        yield "tag"
        bank.remove(*(key_of(bank, answer) for answer in (new[2], new[5])))
        del content[new[2]], content[new[5]]
        yield "remove"
        bank.replace(key_of(bank, new[3]), item(f"{turn} D"))
        renamed = {f"{turn} D" if answer == new[3] else answer: fields for answer, fields in content.items()}
        content.clear()
        content.update(renamed)
        yield "replace"
        keys = list(bank)
        bank._store.add_features("more", keys, np.full((len(keys), 2), turn, np.float32))
        yield "add_features"
        if turn % 2:
            bank.compact()
            yield "compact"
        bank.add([item(f"{turn} last")])
        content[f"{turn} last"] = {}
        yield "add one"
    bank.compact()
    yield "compact"


@dataclass
class State:
    """A copy of a bank's folder as it was after some change."""

    folder: Path
    content: Content


def history(path: Path, copies: Path, rounds: int = 3) -> list[State]:
    """Play the script and keep a copy of the folder, index, log and all, after each change."""
    states: list[State] = []
    content: Content = {}
    with open_bank(CountingEncoder(batch=2), path) as bank:
        for _ in changes(bank, content, rounds):
            states.append(
                State(copies / str(len(states)), {answer: dict(fields) for answer, fields in content.items()})
            )
            shutil.copytree(path, states[-1].folder)
    return states


def read(path: Path) -> Content:
    """Everything that a bank holds, each tensor looked at."""
    with DemonstrationBank.open(path) as bank:
        return read_of(bank)


def read_of(bank: DemonstrationBank) -> Content:
    found: Content = {}
    for entry in bank.values():
        assert torch.equal(entry.fused.embeddings, fused_of(entry.demonstration)), "half of one, or another's"
        found[entry.demonstration.answer] = dict(entry.demonstration.metadata)
    assert [dict(listed.metadata) for listed in bank.view().entries] == list(found.values())
    assert len(bank) == len(found)
    if found:
        assert len(bank.view().features("reading")) == len(found)
    return found


@dataclass
class Verdict:
    """What came of an attack, each step said as ``whole``, ``named`` or ``silent``."""

    steps: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    @property
    def is_silent(self) -> bool:
        return "silent" in self.steps.values()


def judge(path: Path, expected: Content, *, rebuilt: Content | None = None) -> Verdict:
    """Read a bank, add to it, verify it, read again, and make its index again: is anything missing without a word?

    Args:
        expected: what was acknowledged.
        rebuilt: what the bank must hold at the end, where nothing is damaged but the index.
    """
    verdict, now = Verdict(), dict(expected)

    def step(name: str, act: Callable[[], Content | None]) -> bool:
        try:
            found = act()
        except AIMError as error:
            verdict.steps[name] = "named"
            verdict.messages.append(f"{name}: {error}")
            return False
        lost = found is not None and list(found.items()) != list(now.items())
        verdict.steps[name] = "silent" if lost else "whole"
        if lost and found is not None:
            verdict.messages.append(f"{name}: {differences(now, found)}")
        return True

    def verify() -> Content | None:
        with DemonstrationBank.open(path) as bank:
            if problems := bank.verify():
                raise AIMError("\n".join(problems))
        return None

    def add() -> None:
        with closing(open_bank(CountingEncoder(), path)) as bank:
            bank.add([item("one more")])

    step("read", lambda: read(path))
    step("verify", verify)
    if step("add", add):
        now["one more"] = {}
    verdict.steps.pop("add")
    step("read again", lambda: read(path))
    step("verify again", verify)
    if "named" in (verdict.steps["read"], verdict.steps["read again"]) and verdict.steps["verify again"] == "whole":
        verdict.steps["verify again"] = "silent"
        verdict.messages.append("verify: clean, and reading failed")
    _rebuild(path, now, verdict, exact=rebuilt is not None)
    return verdict


def _rebuild(path: Path, now: Content, verdict: Verdict, *, exact: bool) -> None:
    try:
        problems = rebuild_index(path)
        found = read(path)
    except AIMError as error:
        verdict.steps["rebuild"] = "silent" if exact else "named"
        verdict.messages.append(f"rebuild: {error}")
        return
    verdict.messages += [f"rebuild: {problem}" for problem in problems]
    same = list(found.items()) == list(now.items())
    verdict.steps["rebuild"] = "whole" if same else "silent" if exact or not problems else "named"
    if not same:
        verdict.messages.append(f"rebuild: {differences(now, found)}")


def differences(expected: Mapping[str, object], found: Mapping[str, object]) -> str:
    missing, more = expected.keys() - found.keys(), found.keys() - expected.keys()
    other = {answer for answer in expected.keys() & found.keys() if expected[answer] != found[answer]}
    order = "" if missing or more or list(expected) == list(found) else f", in the order {list(found)}"
    return f"missing {sorted(missing)}, too many {sorted(more)}, other metadata {sorted(other)}{order}"


def put_index(source: Path, target: Path, *, log: bool = True) -> None:
    """Put one folder's index in the place of another's."""
    for name in ("bank.sqlite", "bank.sqlite-wal", "bank.sqlite-shm"):
        (target / name).unlink(missing_ok=True)
        if (source / name).exists() and (log or name == "bank.sqlite"):
            shutil.copy(source / name, target / name)


def flip(file: Path, place: int, bit: int = 0x10) -> None:
    data = bytearray(file.read_bytes())
    data[place] ^= bit
    file.write_bytes(data)
