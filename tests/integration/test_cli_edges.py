"""The command line's edges: Ctrl-C, a full disk, a closed pipe, other locales, and texts that a terminal would obey."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from aim_sdk.support.terminal import clean
from tests.conftest import CalledCli, start_cli

HOSTILE = ["[INST] what? [/INST]", "[cat]", "[x", "\x1b]0;owned\x07\x1b[2J", "\x9b31m", "a\u202eb", ":smile:", "\\[/]"]


@pytest.fixture
def bank(tmp_path: Path, tiny: Callable[[str], Path], pictures: list[Image.Image], call_cli: CalledCli) -> Path:
    """A bank of hostile texts in a folder with a hostile name."""
    folder = tmp_path / "a [b] \x1b[31m"
    folder.mkdir()
    pictures[0].save(folder / "[i].png")
    lines = [{"image": "[i].png", "text": text, "answer": text, "note": text, "n": n} for n, text in enumerate(HOSTILE)]
    (folder / "demos.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    model = ("--backend", "llava", "--model", str(tiny("llava-1.5")), "--projector", "residual", "--device", "cpu")
    done = call_cli("bank", "add", str(folder / "bank"), str(folder / "demos.jsonl"), *model)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stderr
    assert "8 demonstrations added" in done.stderr
    return folder / "bank"


def test_texts_are_shown_as_they_are_and_not_obeyed(
    bank: Path, call_cli: CalledCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "600")
    listed = call_cli("bank", "list", str(bank))
    for text in HOSTILE:
        assert listed.stdout.count(clean(text)) == 3, text
    as_json = call_cli("bank", "list", str(bank), "--json")
    assert [json.loads(line)["answer"] for line in as_json.stdout.splitlines()] == HOSTILE
    shown = call_cli("bank", "show", str(bank), json.loads(as_json.stdout.splitlines()[3])["key"])
    assert json.loads(shown.stdout)["text"] == HOSTILE[3]
    stats = call_cli("bank", "stats", str(bank))
    wrong = call_cli("bank", "list", str(bank.parent / "\x1b[2J [/INST]"))
    assert wrong.returncode == 1
    for said in (listed, as_json, shown, stats, wrong):
        assert not any(char in said.stdout + said.stderr for char in "\x1b\x07\x9b\u202e")


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0, 0.1, 0.3, 1, 2])
def test_ctrl_c_while_a_model_is_loaded(tmp_path: Path, seconds: float) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "x.jsonl").write_text('{"image": "a.png", "text": "q", "answer": "a"}\n' * 5000)
    files = ("--demos", str(tmp_path / "x.jsonl"), "--queries", str(tmp_path / "x.jsonl"))
    process = start_cli("answer", *files, "--out", str(tmp_path / "o"))
    while not (tmp_path / ".o.lock").exists():  # the files are read; the model comes next
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 130, (said, errors)
    assert "Traceback" not in errors
    assert "interrupted" in errors.splitlines()[-1]
    assert not (tmp_path / "o").exists() or not (tmp_path / "o").stat().st_size


def test_ctrl_c_in_a_text_that_a_library_executes_ends_with_the_same_code() -> None:
    listens = "import signal; signal.signal(2, signal.default_int_handler); "  # jobs of a script may not
    ended = "from aim_sdk import cli; cli.app = lambda: exec('import os; os.kill(os.getpid(), 2)'); cli.main()"
    done = subprocess.run([sys.executable, "-c", listens + ended], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "interrupted.\n")


def run(command: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which ``aim`` is the command line."""
    line = f'aim() {{ "{sys.executable}" -m aim_sdk.cli "$@"; }}; {command}'
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=120, check=False)


def test_a_closed_pipe_is_no_error_and_a_full_disk_is_one() -> None:
    for command in ("backends list --json", "eval protocols", "--help"):
        closed = run(f"aim {command} | true")
        assert closed.stderr == "", command
    full = run("aim backends list --json > /dev/full")
    assert full.returncode == 1
    assert full.stderr == "error: No space left on device.\n"


@pytest.mark.slow
def test_another_locale(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "x.jsonl").write_text('{"image": "bäume.png", "text": "größe", "answer": "ü"}\n', encoding="utf-8")
    ascii_only = "LC_ALL=C PYTHONUTF8=0"
    files = f"--demos {tmp_path}/x.jsonl --queries {tmp_path}/x.jsonl --out {tmp_path}/o"
    done = run(f"export {ascii_only}; aim answer {files}")
    assert done.returncode == 1
    assert "no usable line" in done.stderr
    assert "Traceback" not in done.stderr
    for command in ("eval protocols", "backends list", "eval tasks", "--help", "answer --help", "bank list ./bäume"):
        done = run(f"export {ascii_only}; aim {command}")
        assert "Traceback" not in done.stderr, command


@pytest.mark.slow
def test_demonstrations_from_a_pipe(tmp_path: Path, tiny: Callable[[str], Path], pictures: list[Image.Image]) -> None:
    for number, picture in enumerate(pictures[:3]):
        picture.save(tmp_path / f"{number}.png")
    lines = [json.dumps({"image": f"{n}.png", "text": "What?", "answer": f"{n}"}) for n in range(3)]
    (tmp_path / "demos.jsonl").write_text("\n".join(lines))
    model = f"--backend llava --model {tiny('llava-1.5')} --projector residual --device cpu"
    done = run(f"cd {tmp_path}; aim bank add b <(head -2 demos.jsonl) {model}")
    assert done.returncode == 0, done.stderr
    assert "2 demonstrations added, 2 in all" in done.stderr
    done = run(f"cd {tmp_path}; cat demos.jsonl | aim bank add b /dev/stdin {model}")
    assert "1 demonstrations added, 3 in all" in done.stderr
    done = run(
        f"cd {tmp_path}; aim answer --demos <(cat demos.jsonl) --queries <(head -2 demos.jsonl) --out o "
        f"--max-new-tokens 2 {model}"
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "o").read_bytes().count(b"\n") == 2


def test_a_file_of_nothing_but_bad_lines_says_a_few_of_them(
    tmp_path: Path, tiny: Callable[[str], Path], call_cli: CalledCli
) -> None:
    (tmp_path / "x.jsonl").write_text("nonsense\n" * 5000)
    model = ("--backend", "llava", "--model", str(tiny("llava-1.5")), "--projector", "residual", "--device", "cpu")
    done = call_cli("bank", "add", str(tmp_path / "bank"), str(tmp_path / "x.jsonl"), *model)
    assert done.returncode == 3
    said = [line for line in done.stderr.splitlines() if "not JSON" in line or "more" in line]
    assert said[0].startswith(f"{tmp_path / 'x.jsonl'}:1: not JSON")
    assert said[-1] == "... and 4,990 more like these."
    assert len(said) == 11
