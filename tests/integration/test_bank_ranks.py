"""`bank add` under torchrun: several processes read, and the bank is that of one."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch
from PIL import Image

from aim_sdk.bank import DemonstrationBank
from aim_sdk.bank.parts import part_folders
from tests.conftest import run_cli, torchrun

pytestmark = pytest.mark.slow


@pytest.fixture
def model(tiny: Callable[[str], Path]) -> list[str]:
    return ["--backend", "llava", "--model", str(tiny("llava-1.5")), "--projector", "carrier", "--device", "cpu"]


@pytest.fixture
def source(tmp_path: Path, pictures: list[Image.Image]) -> Path:
    lines: list[dict[str, object]] = []
    for n in range(30):
        pictures[n % 8].save(tmp_path / f"{n % 8}.png")
        lines.append({"image": f"{n % 8}.png", "text": f"What is {n}?", "answer": f"a {n % 5}", "n": n})
    lines.insert(7, {"image": "missing.png", "text": "", "answer": "x"})
    lines.insert(11, dict(lines[3]))  # given twice
    (tmp_path / "demos.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path / "demos.jsonl"


def together(bank: Path, source: Path, model: list[str], processes: int) -> "subprocess.CompletedProcess[str]":
    command = [*torchrun(processes), "-m", "aim_sdk.cli", "bank", "add", str(bank), str(source), *model]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def same(one: Path, other: Path) -> None:
    with DemonstrationBank.open(one) as found, DemonstrationBank.open(other) as expected:
        assert list(found) == list(expected)
        for key in expected:
            assert found[key].demonstration == expected[key].demonstration
            assert torch.allclose(found[key].fused.embeddings, expected[key].fused.embeddings, atol=1e-5)
        vectors = [bank.view().features("reading") for bank in (found, expected)]
        assert torch.allclose(*map(torch.from_numpy, vectors), atol=1e-5)
        assert found.verify() == []


@pytest.mark.parametrize("before", [False, True])
def test_it_is_the_bank_of_one_process(tmp_path: Path, source: Path, model: list[str], before: bool) -> None:
    if before:  # some are there, and an order of their own
        some = source.with_name("some.jsonl")
        lines = source.read_text().splitlines()
        some.write_text("\n".join([lines[20], lines[4]]))
        for bank in ("one", "two"):
            assert run_cli("bank", "add", str(tmp_path / bank), str(some), *model).returncode == 0
    alone = run_cli("bank", "add", str(tmp_path / "one"), str(source), *model)
    shared = together(tmp_path / "two", source, model, 2)
    assert (alone.returncode, alone.stderr.count("missing.png")) == (3, 1)
    assert "exitcode  : 3" in shared.stderr, shared.stderr
    assert shared.stderr.count("missing.png: no such file") == 1
    assert "30 in all" in shared.stderr
    same(tmp_path / "two", tmp_path / "one")
    assert part_folders(tmp_path / "two") == []


def test_a_killed_one_resumes_with_other_processes(tmp_path: Path, source: Path, model: list[str]) -> None:
    many = source.with_name("many.jsonl")
    many.write_text("\n".join(json.dumps({"image": "0.png", "text": "", "answer": f"{n}"}) for n in range(800)))
    bank = tmp_path / "two"
    command = [*torchrun(2), "-m", "aim_sdk.cli", "bank", "add", str(bank), str(many), *model, "--batch-tokens", "60"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and len(list(tmp_path.glob("two.part-*/segment-*"))) < 2:
        time.sleep(0.05)
    time.sleep(0.3)
    readers = psutil.Process(process.pid).children()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    _, left = psutil.wait_procs(readers, timeout=30)
    assert len(readers) == 2
    assert not left
    kept = 0
    for folder in part_folders(bank):
        with DemonstrationBank.open(folder) as part:
            kept += len(part)
    assert 0 < kept < 800
    resumed = together(bank, many, model, 3)
    assert resumed.returncode == 0, resumed.stderr
    assert run_cli("bank", "add", str(tmp_path / "one"), str(many), *model).returncode == 0
    same(bank, tmp_path / "one")
