"""Real vLLM servers for tests, from an environment of their own: `.ci/vllm FOLDER` makes it; AIM_VLLM names it."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2
import pytest

FLAGS = ("--enable-prompt-embeds", "--trust-request-chat-template")


def needs_vllm() -> pytest.MarkDecorator:
    return pytest.mark.skipif("AIM_VLLM" not in os.environ, reason="AIM_VLLM names no environment with vLLM")


@contextmanager
def serving(model: Path, *flags: str, log: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A server in float32 on the CPU, once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        str(Path(os.environ["AIM_VLLM"]) / "bin" / "vllm"),
        "serve",
        str(model),
        *("--port", str(port), "--dtype", "float32", "--enforce-eager", "--max-model-len", "2048"),
        *("--max-num-seqs", "16", "--limit-mm-per-prompt", '{"image": 9}', *flags),
    ]
    chosen = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
    left_out = ("PYTHONPATH", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    environment = {name: value for name, value in os.environ.items() if name not in left_out} | chosen
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
    try:
        url, end = f"http://127.0.0.1:{port}", time.monotonic() + 300
        while not _answers(url):
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < end, log.read_text()[-3000:]
            time.sleep(0.5)
        yield url, process
    finally:
        end_server(process)


def end_server(process: subprocess.Popen[bytes]) -> None:
    """Kill a server with the processes of its engine."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # it leads a session
    process.wait()


def _answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/health", timeout=5).status_code == 200
    except httpx2.TransportError:
        return False
