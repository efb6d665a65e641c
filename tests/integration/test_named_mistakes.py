"""Mistakes on the command line that once were silent, or answered by a page of help."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from aim_sdk import AIMPipeline, Demonstration
from tests.conftest import CalledCli


def test_what_eval_lacks_is_named(call_cli: CalledCli) -> None:
    for given, missing in ((("--tasks", "x.yaml"), "--backend is missing"), (("--backend", "x"), "--tasks is missing")):
        finished = call_cli("eval", *given)
        assert finished.returncode == 1
        assert missing in finished.stderr


def test_a_metadata_field_that_no_demonstration_has_is_refused(
    tiny: Callable[[str], Path], tmp_path: Path, call_cli: CalledCli
) -> None:
    options = {"model": tiny("llava-1.5"), "projector": "carrier", "device": "cpu", "bank": tmp_path / "bank"}
    pipe = AIMPipeline.from_pretrained("llava", **options)
    pipe.bank.add(Demonstration(Image.new("RGB", (24, 24)), "What?", "a cat", {"label": "animal"}))
    pipe.bank.close()
    for command in ("list", "remove"):
        finished = call_cli("bank", command, str(tmp_path / "bank"), "--where", "labl=animal")
        assert finished.returncode == 1
        assert "no demonstration has a field 'labl'. Did you mean 'label'?" in finished.stderr
    assert "a cat" in call_cli("bank", "list", str(tmp_path / "bank"), "--where", "label=animal").stdout


def test_a_wrong_option_is_refused_before_torch_is_imported(tmp_path: Path) -> None:
    """In a process of its own: all of these at once."""
    Image.new("RGB", (24, 24)).save(tmp_path / "a.png")
    (tmp_path / "d.jsonl").write_text('{"image": "a.png", "text": "what", "answer": "x"}\n' * 2)
    (tmp_path / "q.jsonl").write_text('{"image": "a.png", "text": "what"}\n')
    (tmp_path / "bare.csv").write_text("image,text\na.png,what\n")
    asked, shown = ("answer", "--queries", "q.jsonl"), ("--demos", "d.jsonl")
    task = ("eval", "--backend", "pocket", "--tasks", "emoji-category")
    commands = [
        ((*asked, *shown, "--out", "x.xlsx"), "its name ends in .jsonl, .csv or .tsv"),
        ((*asked, "--out", "x.jsonl"), "pass --demos FILE or --bank FOLDER"),
        ((*asked, "--demos", "bare.csv", "--out", "x.jsonl"), "answer: there is no such column"),
        ((*asked, *shown, "--out", "x.jsonl", "--shots", "3"), "3 shots asked for, but d.jsonl has 2 demonstrations"),
        ((*asked, *shown, "--out", "x.jsonl", "--selector", "raeding"), "Did you mean 'reading'"),
        ((*asked, *shown, "--out", "x.jsonl", "--backend", "pokcet"), "Did you mean 'pocket'"),
        ((*task[:-1], "emoji-categry"), "Did you mean 'emoji-category'"),
        ((*task, "--protocol", "aimm"), "Did you mean 'aim'"),
        ((*task, "--selector", "rics"), "Did you mean 'rices'"),
        ((*task[:-1], "okvqa"), "its data was not found"),
        (("eval", "--backend", "pokcet", *task[3:]), "Did you mean 'pocket'"),
    ]
    program = f"""
import sys
from aim_sdk.cli import main
for command in {[command for command, _ in commands]!r}:
    sys.argv = ["aim-icl", *command]
    try:
        main()
    except SystemExit as stopped:
        print("====", stopped.code, "torch" in sys.modules, file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    said = done.stderr.split("====")
    for (command, message), before, after in zip(commands, said, said[1:], strict=False):
        assert message in before, command
        assert after.startswith(" 1 False"), command


def test_what_is_piped_is_not_wrapped(call_cli: CalledCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)  # the tests' own processes may have one
    listed = call_cli("eval", "tasks", "--data", str(tmp_path)).stdout
    assert "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip" in listed
    assert sum(line.startswith("okvqa ") for line in listed.splitlines()) == 1
