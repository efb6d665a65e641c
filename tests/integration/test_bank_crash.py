"""A writer that is killed at any moment loses nothing that it has acknowledged."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from aim_sdk import Demonstration, DemonstrationBank
from aim_sdk.bank.disk import segments
from tests.banks import CountingEncoder, fused_of, open_bank

IMAGE = Image.new("RGB", (2, 2))


@pytest.mark.parametrize("kills", [15, pytest.param(200, marks=pytest.mark.slow)])
def test_a_killed_writer_loses_nothing_acknowledged(tmp_path: Path, kills: int) -> None:
    program = f"from tests.integration.test_bank_crash import main; main({str(tmp_path / 'bank')!r}, {kills})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["kills"] == kills
    assert report["acknowledged"] > kills
    assert report["in_flight"] > kills // 4, "most kills should strike while something is being written"


def main(path: str, kills: int) -> None:
    """Fork writers and kill them; a process of its own, without threads, that has imported everything once."""
    segments.SEGMENT_BYTES = 20_000
    dice = random.Random(0)
    expected: dict[str, dict[str, Any]] = {}  # answer -> metadata
    acknowledged = in_flight = 0
    with open_bank(CountingEncoder(), Path(path)):
        pass
    for round_ in range(kills):
        lines = _killed(path, round_, sorted(expected), dice)
        begun: dict[str, Any] | None = None
        for line in lines:
            if line["state"] == "begin":
                begun = line
            else:
                _apply(expected, line)
                acknowledged, begun = acknowledged + 1, None
        in_flight += begun is not None
        found = _found(path)
        maybe = set() if begun is None else {*begun["add"], *begun["remove"], *begun["tag"]}
        for answer in {*expected, *found} - maybe:
            assert (answer in expected) == (answer in found), (round_, answer, begun)
            assert expected[answer] == found[answer], (round_, answer, begun)
        expected = found
    print(json.dumps({"kills": kills, "acknowledged": acknowledged, "in_flight": in_flight, "left": len(expected)}))


def _killed(path: str, seed: int, answers: list[str], dice: random.Random) -> list[dict[str, Any]]:
    """Let a writer begin some changes, kill it at once or a little later, and return what it has said."""
    begun, seconds = dice.randint(1, 10), dice.random() * dice.choice((0.002, 0.2))
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            _write(path, seed, writing, answers)
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as said:
        seen = b"".join(said.readline() for _ in range(2 * begun - 1))  # "begin" and "done" in turns
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1]), "the writer ended by itself"
        whole = (seen + said.read()).split(b"\n")[:-1]
    return [json.loads(line) for line in whole]


def _write(path: str, seed: int, pipe: int, answers: list[str]) -> None:
    dice = random.Random(seed)
    number = 0
    with open_bank(CountingEncoder(batch=2), Path(path)) as bank:
        while True:
            add = [f"{seed}-{number + i}" for i in range(dice.randint(1, 5))]
            number += len(add)
            gone = dice.sample(answers, min(len(answers), dice.randint(0, 5)))
            tagged = dice.sample(answers, 1) if answers and dice.random() < 0.3 else []
            for change in (
                {"add": add, "remove": [], "tag": []},
                {"add": [], "remove": gone, "tag": []},
                {"add": [], "remove": [], "tag": [answer for answer in tagged if answer not in gone]},
            ):
                if not any(change.values()):
                    continue
                os.write(pipe, json.dumps({"state": "begin", "label": number, **change}).encode() + b"\n")
                bank.add([_item(answer) for answer in change["add"]])
                bank.remove(*(bank.key(_item(answer)) for answer in change["remove"]))
                for answer in change["tag"]:
                    bank.tag(bank.key(_item(answer)), label=number)
                os.write(pipe, json.dumps({"state": "done", "label": number, **change}).encode() + b"\n")
            answers = [answer for answer in [*answers, *add] if answer not in gone]
            if dice.random() < 0.3:
                bank.compact()


def _apply(expected: dict[str, dict[str, Any]], line: dict[str, Any]) -> None:
    expected.update({answer: {} for answer in line["add"]})
    for answer in line["remove"]:
        del expected[answer]
    for answer in line["tag"]:
        expected[answer] = {"label": line["label"]}


def _found(path: str) -> dict[str, dict[str, Any]]:
    with DemonstrationBank.open(path) as bank:
        assert bank.verify() == []
        for entry in bank.values():
            assert torch.equal(entry.fused.embeddings, fused_of(entry.demonstration))
        assert len(bank.view().features("reading")) == len(bank)
        return {entry.demonstration.answer: dict(entry.demonstration.metadata) for entry in bank.values()}


def _item(answer: str) -> Demonstration:
    return Demonstration(IMAGE, "t", answer)
