"""vLLM servers that end, that lack a flag, or that run another model: an error says so, and nothing is lost."""

import json
import threading
import time
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from aim_backends.auto import AutoBackend
from aim_backends.vllm.backend import VllmBackend
from aim_sdk import AIMPipeline
from aim_sdk.cli import app
from aim_sdk.errors import BackendError, UnsupportedModelError
from aim_sdk.projectors import untrained
from tests.conformance.test_vllm import demonstrations, queries
from tests.vllm_servers import FLAGS, build_served, end_server, needs_vllm, serving

pytestmark = [pytest.mark.slow, needs_vllm(), pytest.mark.xdist_group("vllm")]


def test_a_server_that_ends(tmp_path: Path, pictures: list[Image.Image]) -> None:
    """In the middle of a batch; and servers that lack a flag, or run another model."""
    model = build_served("llava-1.5", tmp_path / "llava")
    local = AutoBackend.from_pretrained(str(model), device="cpu")
    with serving(model, *FLAGS, log=tmp_path / "log") as (url, process):
        backend = VllmBackend.from_pretrained(base_url=url, reader=local)
        pipe = AIMPipeline(backend, untrained("residual", local.vocabulary))
        pipe.bank.add(demonstrations(pictures))
        assert pipe.generate(queries(pictures), shots=2, max_new_tokens=2)
        other = AutoBackend.from_pretrained(str(build_served("qwen2.5-vl", tmp_path / "qwen")), device="cpu")
        with pytest.raises((UnsupportedModelError, BackendError), match="model"):
            VllmBackend.from_pretrained(base_url=url, reader=other)
        timer = threading.Timer(1.0, end_server, args=(process,))
        timer.start()
        with pytest.raises(BackendError, match="start the server again and repeat the command"):
            pipe.generate(queries(pictures) * 500, shots=2, max_new_tokens=200)
        timer.join()


def test_a_job_resumes_on_another_server(tmp_path: Path, pictures: list[Image.Image]) -> None:
    """The server is killed while `aim-icl answer` runs; what was answered stays, and the same command ends the rest."""
    model = build_served("llava-1.5", tmp_path / "llava")
    for folder, names in (("shown", ("a fox", "an owl")), ("asked", ("1", "2", "3"))):
        for name, picture in zip(names, pictures, strict=False):
            (tmp_path / folder / name).mkdir(parents=True)
            for n in range(8):
                picture.rotate(n).save(tmp_path / folder / name / f"{n}.png")
    out = tmp_path / "answers.jsonl"
    command = ["answer", "--demos", str(tmp_path / "shown"), "--queries", str(tmp_path / "asked"), "--out", str(out)]
    command += ["--model", str(model), "--projector", "residual", "--text", "What is it?", "--shots", "2"]
    command += ["--max-new-tokens", "40", "--batch-size", "2", "--selector", "first"]

    def answers() -> list[Any]:
        return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []

    runner = CliRunner()
    with serving(model, *FLAGS, log=tmp_path / "log") as (url, process):

        def end_in_the_middle() -> None:
            while not 2 <= len(answers()) < 20:
                time.sleep(0.01)
            end_server(process)

        Thread(target=end_in_the_middle, daemon=True).start()
        cut = runner.invoke(app, [*command, "--backend", "vllm", "--option", f"base_url={url}"])
    assert isinstance(cut.exception, BackendError), cut.output
    kept = answers()
    assert 2 <= len(kept) < 24
    with serving(model, *FLAGS, log=tmp_path / "log") as (url, _):
        done = runner.invoke(app, [*command, "--backend", "vllm", "--option", f"base_url={url}"])
    assert done.exit_code == 0, done.output
    assert answers()[: len(kept)] == kept
    out.rename(tmp_path / "served.jsonl")
    for rest in tmp_path.glob("answers.jsonl.*"):
        rest.unlink()
    local = runner.invoke(app, [*command, "--backend", "llava", "--device", "cpu"])
    assert local.exit_code == 0, local.output
    served = [json.loads(line) for line in (tmp_path / "served.jsonl").read_text().splitlines()]
    assert [one["answer"] for one in served] == [one["answer"] for one in answers()]


@pytest.mark.parametrize(
    ("flags", "told"),
    [((FLAGS[0],), "--trust-request-chat-template"), ((FLAGS[1],), "--enable-prompt-embeds")],
)
def test_a_server_without_a_flag(tmp_path: Path, flags: tuple[str, ...], told: str) -> None:
    model = build_served("llava-1.5", tmp_path / "llava")
    local = AutoBackend.from_pretrained(str(model), device="cpu")
    with serving(model, *flags, log=tmp_path / "log") as (url, _), pytest.raises(BackendError, match=told):
        VllmBackend.from_pretrained(base_url=url, reader=local)
