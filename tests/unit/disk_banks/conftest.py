"""A bank on disk that holds a demonstration of each picture."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from aim_sdk import Demonstration, DemonstrationBank
from tests.banks import CountingEncoder, open_bank


@pytest.fixture
def items(pictures: list[Image.Image]) -> list[Demonstration]:
    return [Demonstration(picture, "What?", f"answer {i}", {"n": i}) for i, picture in enumerate(pictures)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a bank"


@pytest.fixture
def bank(path: Path, items: list[Demonstration]) -> Iterator[DemonstrationBank]:
    with open_bank(CountingEncoder(), path, keep_readings=True) as bank:
        bank.add(items)
        yield bank
