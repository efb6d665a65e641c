"""Fixtures that several folders share."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before anything imports huggingface_hub
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before anything imports torch: tiny models are slower on more threads

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from aim_sdk.cli import main
from aim_sdk.testing.tiny import build


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Builds a variant's folder once."""
    folders: dict[str, Path] = {}

    def folder(variant: str) -> Path:
        if variant not in folders:
            folders[variant] = build(variant, tmp_path_factory.mktemp(variant) / variant)
        return folders[variant]

    return folder


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """Eight images that differ."""
    return [Image.linear_gradient("L").resize((40, 48)).convert("RGB").rotate(45 * turn) for turn in range(8)]


CalledCli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def call_cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CalledCli:
    """Runs ``aim-icl`` in this process, which has imported everything: as `run_cli`, but quick."""

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["aim-icl", *arguments])
        try:
            main()
            code = 0
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        said = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, code, said.out, said.err)

    return call


def torchrun(processes: int = 2) -> list[str]:
    """What stands before ``-m module``, so that so many processes share a run on this machine's CPU."""
    port = str(20000 + os.getpid() % 9999)
    launcher = [sys.executable, "-m", "torch.distributed.run"]
    return [*launcher, "--nproc_per_node", str(processes), "--master_port", port]


def start_cli(*arguments: str) -> subprocess.Popen[str]:
    """Start ``aim-icl`` as a process of its own, which Ctrl-C ends, also where this one ignores it (``nohup``)."""
    return subprocess.Popen(
        [sys.executable, "-m", "aim_sdk.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def run_cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``aim-icl`` as a process of its own."""
    command = [sys.executable, "-m", "aim_sdk.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
