"""`aim-icl bank` as a user runs it, on a tiny LLaVA."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from aim_sdk.bank import DemonstrationBank
from tests.conftest import CalledCli, run_cli, start_cli


@pytest.fixture
def files(tmp_path: Path, pictures: list[Image.Image]) -> Path:
    (tmp_path / "images").mkdir()
    lines = []
    for i, picture in enumerate(pictures):
        picture.save(tmp_path / "images" / f"{i}.png")
        lines.append({"image": f"images/{i}.png", "text": "What?", "answer": f"a {i}", "label": "ab"[i % 2], "n": i})
    (tmp_path / "demos.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    return tmp_path


@pytest.fixture
def model(tiny: Callable[[str], Path]) -> list[str]:
    return ["--backend", "llava", "--model", str(tiny("llava-1.5")), "--projector", "carrier", "--device", "cpu"]


def test_a_bank_from_the_first_line_to_the_last(files: Path, model: list[str], call_cli: CalledCli) -> None:
    bank, demos = files / "bank", files / "demos.jsonl"
    with demos.open("a") as file:
        file.write('{"image": "images/none.png", "answer": "x"}\n{"image": \n')
    (files / "images" / "broken.png").write_bytes((files / "images" / "0.png").read_bytes()[:60])
    with demos.open("a") as file:
        file.write('{"image": "images/broken.png", "answer": "x"}\n')

    added = call_cli("bank", "add", str(bank), str(demos), *model, "--keep-readings")
    assert added.returncode == 3
    assert "Traceback" not in added.stderr
    assert "8 demonstrations added, 8 in all" in added.stderr
    for problem in ("none.png: no such file", "demos.jsonl:10: not JSON", "broken.png: truncated or unreadable"):
        assert problem in added.stderr

    again = call_cli("bank", "add", str(bank), str(demos), *model)
    assert "0 demonstrations added, 8 in all" in again.stderr

    listed = call_cli("bank", "list", str(bank), "--limit", "3")
    assert "a 2" in listed.stdout
    assert "a 3" not in listed.stdout
    assert "5 more" in listed.stderr
    filtered = call_cli("bank", "list", str(bank), "--where", "label=b", "--where", "n=3", "--json")
    (line,) = map(json.loads, filtered.stdout.splitlines())
    assert line["answer"] == "a 3"
    assert line["metadata"] == {"label": "b", "n": 3}

    shown = json.loads(call_cli("bank", "show", str(bank), line["key"][:10]).stdout)
    assert shown["fused"]["dtype"] == "float32"
    assert shown["image"] == str(files / "images" / "3.png")

    assert call_cli("bank", "remove", str(bank), line["key"]).returncode == 0
    removed = call_cli("bank", "remove", str(bank), "--where", "label=a")
    assert "4 demonstrations removed, 3 left" in removed.stderr
    assert "problems" in call_cli("bank", "verify", str(bank)).stderr
    assert call_cli("bank", "compact", str(bank)).returncode == 0

    stats = json.loads(call_cli("bank", "stats", str(bank), "--json").stdout)
    assert stats["demonstrations"] == 3
    assert stats["binding"]["projector_kind"] == "carrier"
    assert "carrier" in call_cli("bank", "stats", str(bank)).stdout

    assert call_cli("bank", "export", str(bank), str(files / "bank.aim")).returncode == 0
    imported = call_cli("bank", "import", str(files / "copy"), str(files / "bank.aim"))
    assert "3 demonstrations added, 3 in all" in imported.stderr

    residual = [*model[:4], "--projector", "residual", "--device", "cpu"]
    refused = call_cli("bank", "add", str(bank), str(demos), *residual)
    assert refused.returncode == 1
    assert "'carrier' projector" in refused.stderr
    assert "projects the kept readings again" in refused.stderr
    shutil.rmtree(files / "images")
    converted = call_cli("bank", "convert", str(bank), str(files / "new"), *residual)
    assert converted.returncode == 0, converted.stderr
    assert "3 demonstrations, projected from kept readings" in converted.stderr
    with DemonstrationBank.open(bank) as old, DemonstrationBank.open(files / "new") as new:
        assert [e.demonstration.answer for e in old.values()] == [e.demonstration.answer for e in new.values()]


def test_a_bank_answers_queries(files: Path, model: list[str], call_cli: CalledCli) -> None:
    bank = files / "bank"
    missing = call_cli(
        "answer", "--bank", str(bank), "--queries", str(files / "demos.jsonl"), "--out", str(files / "o"), *model
    )
    assert missing.returncode == 1
    assert "aim-icl bank add" in missing.stderr
    call_cli("bank", "add", str(bank), str(files / "demos.jsonl"), *model)
    options = ["--queries", str(files / "demos.jsonl"), "--out", str(files / "answers.jsonl"), "--max-new-tokens", "2"]
    done = call_cli("answer", "--bank", str(bank), "--selector", "reading", "--shots", "3", *options, *model)
    assert done.returncode == 0, done.stderr
    assert len((files / "answers.jsonl").read_text().splitlines()) == 8
    both = call_cli("answer", "--bank", str(bank), "--demos", str(files / "demos.jsonl"), *options, *model)
    assert both.returncode == 1
    assert "--demos FILE or --bank FOLDER" in both.stderr
    wrong = call_cli("answer", "--bank", str(bank), "--selector", "readings", *options, *model)
    assert "Did you mean 'reading'" in wrong.stderr


def test_folders_of_images(files: Path, model: list[str], pictures: list[Image.Image], call_cli: CalledCli) -> None:
    folder = files / "classes"
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
    pictures[0].save(folder / "cat" / "1.PNG")
    pictures[1].save(folder / "dog" / "2.jpg")
    pictures[2].save(folder / "captioned.png")
    (folder / "captioned.txt").write_text("a grey slope\n")
    pictures[3].save(folder / "alone.png")
    (folder / "notes.md").write_text("no image")
    added = call_cli("bank", "add", str(files / "bank"), str(folder), "--text", "What is it?", *model)
    assert added.returncode == 3
    assert "alone.png: no answer" in added.stderr
    with DemonstrationBank.open(files / "bank") as bank:
        found = {
            (e.demonstration.text, e.demonstration.answer, e.demonstration.metadata.get("label")) for e in bank.values()
        }
    assert found == {
        ("What is it?", "cat", "cat"),
        ("What is it?", "dog", "dog"),
        ("What is it?", "a grey slope", None),
    }


def test_errors_without_tracebacks(files: Path, model: list[str], call_cli: CalledCli) -> None:
    for arguments, message in (
        (["list", str(files / "nothing")], "no bank is there"),
        (["verify", str(files / "nothing"), "--rebuild-index"], "no segment of a bank"),
        (["import", str(files / "bank"), str(files / "nothing.aim")], "No such file"),
        (["import", str(files / "bank"), str(files / "demos.jsonl")], "not an exported bank"),
        (["add", str(files / "bank"), str(files / "nothing.jsonl"), *model], "cannot be read"),
        (["add", str(files / "demos.jsonl"), str(files / "demos.jsonl"), *model], "a bank is a folder"),
        (["remove", str(files / "bank")], "pass one KEY or more"),
        (["list", str(files / "bank"), "--where", "label"], "expected FIELD=VALUE"),
    ):
        done = call_cli("bank", *arguments)
        assert done.returncode == 1, arguments
        assert message in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
    assert not (files / "bank").exists() or not any((files / "bank").glob("segment-*"))


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_read_and_the_next_run_goes_on(files: Path, model: list[str]) -> None:
    lines = [json.dumps({"image": "images/0.png", "text": "What?", "answer": f"{n}"}) for n in range(3000)]
    (files / "many.jsonl").write_text("\n".join(lines))
    command = ["bank", "add", str(files / "bank"), str(files / "many.jsonl"), *model, "--batch-tokens", "60"]
    process = start_cli(*command)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if list((files / "bank").glob("segment-*")):
            break
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "demonstrations are kept; run the same command again" in said
    assert "Traceback" not in said
    with DemonstrationBank.open(files / "bank") as bank:
        kept = len(bank)
        assert 0 < kept < 3000
        assert bank.verify() == []
    (files / "many.jsonl").write_text("\n".join(lines[:kept]))
    again = run_cli("bank", "add", str(files / "bank"), str(files / "many.jsonl"), *model)
    assert again.returncode == 0
    assert os.path.exists(files / "bank")
