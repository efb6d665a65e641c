"""Fixtures that several folders share."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before anything imports huggingface_hub

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

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


def run_cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``aim-icl`` as a process of its own."""
    command = [sys.executable, "-m", "aim_sdk.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
