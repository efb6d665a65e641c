"""Writers that are killed at any moment, some of them with their index's log lost or an older index put back."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from aim_sdk.bank import bank as bank_module
from aim_sdk.bank.disk import segments
from aim_sdk.bank.disk.maintenance import rebuild_index
from aim_sdk.errors import CorruptArtifactError
from tests.bank_attacks import SMALL, Content, differences, item, key_of, put_index, read
from tests.banks import CountingEncoder, open_bank


@pytest.mark.parametrize("kills", [12, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_killed_writer_loses_nothing_whatever_becomes_of_its_index(tmp_path: Path, kills: int) -> None:
    program = f"from tests.integration.test_bank_kills import main; main({str(tmp_path)!r}, {kills})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=1500, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    print(report)
    assert report["kills"] == kills
    assert report["in flight"] > kills // 4, "most kills should strike while something is being written"
    assert report["acknowledged"] > kills


def main(folder: str, kills: int) -> None:
    """Fork writers and kill them; a process of its own, without threads, that has imported everything once."""
    segments.SEGMENT_BYTES, bank_module.WINDOW = SMALL, 5
    tmp, dice, expected = Path(folder), random.Random(0), Content()
    path = tmp / "bank"
    counts = {"kills": 0, "acknowledged": 0, "in flight": 0, "logs lost": 0, "older indexes": 0, "left": 0}
    with open_bank(CountingEncoder(), tmp / "other") as other:
        other.add([item(f"imported {number}") for number in range(6)])
        other.export(tmp / "in.aim")
    with open_bank(CountingEncoder(), path) as bank:
        bank.add([item("first")])
        expected["first"] = {}
    for round_ in range(kills):
        shutil.rmtree(tmp / "older", ignore_errors=True)
        shutil.copytree(path, tmp / "older")
        lines = killed(path, round_, list(expected), dice)
        begun: dict[str, Any] | None = None
        for line in lines:
            if line["state"] == "begin":
                begun = line
            else:
                apply(expected, line)
                begun, counts["acknowledged"] = None, counts["acknowledged"] + 1
        counts["kills"] += 1
        counts["in flight"] += begun is not None
        fate = dice.random()
        if fate < 0.25:
            lose_log(path)
            counts["logs lost"] += 1
        elif fate < 0.5:
            put_index(tmp / "older", path, log=dice.random() < 0.5)
            counts["older indexes"] += 1
        expected = examined(path, expected, begun, damaged=fate < 0.5, what=(round_, fate))
        if len(expected) > 60:
            with open_bank(CountingEncoder(), path) as bank:
                gone = list(expected)[5:]
                bank.remove(*(key_of(bank, answer) for answer in gone))
                expected = {answer: fields for answer, fields in expected.items() if answer not in gone}
    counts["left"] = len(expected)
    print(json.dumps(counts))


def lose_log(path: Path) -> None:
    for name in ("bank.sqlite-wal", "bank.sqlite-shm"):
        (path / name).unlink(missing_ok=True)


def examined(path: Path, expected: Content, begun: dict[str, Any] | None, *, damaged: bool, what: object) -> Content:
    """What the bank holds: what was acknowledged, and what was being done whole or not at all."""
    refused = ""
    try:
        found = read(path)
    except CorruptArtifactError as error:
        refused = str(error)
    if refused:
        assert damaged, (what, refused)
        assert "--rebuild-index" in refused
        assert rebuild_index(path) == [], what
        found = read(path)
    steps = [expected] if begun is None else whole_steps(expected, begun)
    assert any(list(found.items()) == list(step.items()) for step in steps), (
        what,
        begun,
        [differences(step, found) for step in steps],
    )
    with open_bank(CountingEncoder(), path) as bank:
        assert bank.verify() == [], what
    return found


def whole_steps(expected: Content, begun: dict[str, Any]) -> list[Content]:
    """Every state that a change may have been stopped at: an ``add`` keeps batch by batch."""
    steps = [dict(expected)]
    for number in range(len(begun.get("add", []))):
        step = dict(expected)
        apply(step, {**begun, "add": begun["add"][: number + 1]})
        steps.append(step)
    if not begun.get("add"):
        step = dict(expected)
        apply(step, begun)
        steps.append(step)
    return steps


def apply(expected: Content, line: dict[str, Any]) -> None:
    for answer in line.get("add", []):
        expected.setdefault(answer, {})
    for answer in line.get("remove", []):
        del expected[answer]
    if "tag" in line:
        expected[line["tag"]] = {"label": line["label"]}
    if "replace" in line:
        renamed = {line["by"] if name == line["replace"] else name: v for name, v in expected.items()}
        renamed[line["by"]] = {}
        expected.clear()
        expected.update(renamed)


def killed(path: Path, seed: int, answers: list[str], dice: random.Random) -> list[dict[str, Any]]:
    """Let a writer begin some changes, kill it at once or a little later, and return what it has said."""
    begun, seconds = dice.randint(1, 8), dice.random() * dice.choice((0.0005, 0.004, 0.02))
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            write(path, seed, writing, answers)
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as said:
        seen = b"".join(said.readline() for _ in range(2 * begun - 1))  # "begin" and "done" in turns
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        whole = (seen + said.read()).split(b"\n")[:-1]
    assert os.WIFSIGNALED(status), f"the writer ended by itself: {whole[-1:]!r}"
    return [json.loads(line) for line in whole]


def write(path: Path, seed: int, pipe: int, answers: list[str]) -> None:
    dice, held = random.Random(seed), dict.fromkeys(answers)
    encoder = CountingEncoder(batch=1)
    bank = open_bank(encoder, path)
    for number in range(10**6):
        kind = dice.choice(("add", "add", "add", "remove", "tag", "replace", "compact", "import", "rebuild"))
        change: dict[str, Any] = {"kind": kind}
        names = list(held)
        if kind == "add":
            change["add"] = [f"{seed} {number} {n}" for n in range(dice.randint(1, 7))]
        elif kind == "remove":
            change["remove"] = dice.sample(names, min(len(names) - 1, dice.randint(0, 3)))
        elif kind == "tag":
            change |= {"tag": dice.choice(names), "label": f"{seed} {number}"}
        elif kind == "replace":
            change |= {"replace": dice.choice(names), "by": f"{seed} {number} by"}
        elif kind == "import":
            change["add"] = [f"imported {n}" for n in range(6) if f"imported {n}" not in held]
        os.write(pipe, json.dumps({"state": "begin", **change}).encode() + b"\n")
        match kind:
            case "add":
                bank.add([item(answer) for answer in change["add"]])
            case "remove":
                bank.remove(*(key_of(bank, answer) for answer in change["remove"]))
            case "tag":
                bank.tag(key_of(bank, change["tag"]), label=change["label"])
            case "replace":
                bank.replace(key_of(bank, change["replace"]), item(change["by"]))
            case "compact":
                bank.compact()
            case "import":
                bank.import_from(path.with_name("in.aim"))
            case "rebuild":
                assert rebuild_index(path) == []
        os.write(pipe, json.dumps({"state": "done", **change}).encode() + b"\n")
        content: Content = {answer: {} for answer in held}
        apply(content, change)
        held = dict.fromkeys(content)
