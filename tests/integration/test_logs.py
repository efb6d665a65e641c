"""What long commands write where stderr is a file: plain whole lines, whatever ends them."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from PIL import Image

from aim_sdk.evaluation.results import RESULT

HASTY = "from aim_sdk.support import progress; progress.EVERY = 0.2; from aim_sdk.cli import main; main()"
"""The command, which writes its lines as often as a test can wait for."""
NOISE = ("Loading weights", "it/s", "UserWarning", "FutureWarning", ".py:", "\r", "\x1b")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(12):
        Image.new("RGB", (48, 48), (20 * number, 90, 250 - 20 * number)).save(folder / f"{number}.png")
    return folder


def train(photos: Path, model: Path, folder: Path) -> list[str]:
    pairs = [{"image": f"{number}.png", "answer": f"Photo {number}."} for number in range(4)]
    (photos / "docs.jsonl").write_text("\n".join([json.dumps({"pairs": pairs})] * 60))
    settings = {
        "output": str(folder / "run"),
        "backend": "llava",
        "model": str(model),
        "device": "cpu",
        "corpus": {"path": str(photos / "docs.jsonl"), "min_image_bytes": 0},
        "evaluation": {"every": 50, "episodes": 4},
        "steps": 4000,
        "workers": 0,
    }
    (folder / "train.yaml").write_text(yaml.safe_dump(settings))
    return ["train", str(folder / "train.yaml")]


def evaluate(photos: Path, model: Path, folder: Path) -> list[str]:
    lines = [{"id": f"q{n}", "image": f"{n % 12}.png", "text": f"Which {n}?", "answers": ["it"]} for n in range(400)]
    (photos / "queries.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (photos / "support.jsonl").write_text("\n".join(json.dumps(line | {"id": "s" + line["id"]}) for line in lines[:12]))
    task = {
        "name": "photos",
        "title": "Photos by number",
        "kind": "classification",
        "metric": "exact_match",
        "loader": "jsonl",
        "folder": str(photos),
        "files": {"queries": str(photos / "queries.jsonl"), "support": str(photos / "support.jsonl")},
        "source": "made here",
        "licence": "none",
        "splits": "400 queries, 12 demonstrations",
    }
    (folder / "task.yaml").write_text(yaml.safe_dump(task))
    options = ["--tasks", str(folder / "task.yaml"), "--output", str(folder / "run"), "--shots", "2", "--seeds", "1"]
    model_options = ["--backend", "llava", "--model", str(model), "--projector", "carrier", "--device", "cpu"]
    return ["eval", *model_options, *options, "--modes", "aim,text-only", "--batch-size", "2"]


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize(("made", "line"), [(train, "training, steps: "), (evaluate, "photos, batches: ")])
def test_a_log_is_whole_lines_however_it_ends(
    made: Callable[[Path, Path, Path], list[str]],
    line: str,
    end: signal.Signals,
    photos: Path,
    tiny: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    arguments = made(photos, tiny("llava-1.5"), tmp_path)
    log = tmp_path / "log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", HASTY, *arguments],
            stdout=subprocess.DEVNULL,
            stderr=file,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        until = time.monotonic() + 120
        while len(re.findall(rf"^{line}[1-9].*\n", log.read_text(), re.MULTILINE)) < 2:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.05)
        process.send_signal(end)
        process.wait(timeout=60)
    text = log.read_text()
    assert not (tmp_path / "run" / RESULT).exists()
    assert text.endswith("\n")
    assert not [noise for noise in NOISE if noise in text], text
    found = re.findall(rf"{line}([\d,]+)/([\d,]+)", text)
    counts = [(int(done.replace(",", "")), int(total.replace(",", ""))) for done, total in found]
    assert counts == sorted(counts)
    assert all(done <= total for done, total in counts)
    assert re.search(
        rf"^{line}[\d,]+/[\d,]+, .*per (second|minute), 0:\d\d:\d\d so far, \d+:\d\d:\d\d left$", text, re.MULTILINE
    )
    if end == signal.SIGINT:
        assert process.returncode == 130
        assert text.splitlines()[-1].startswith("interrupted"), text
        assert "Traceback" not in text
