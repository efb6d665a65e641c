"""The bank's own rules, on a counting encoder in place of a backbone."""

from collections.abc import Callable

import pytest
from PIL import Image

from aim_sdk import Demonstration
from tests.banks import open_bank


@pytest.fixture
def items(pictures: list[Image.Image]) -> list[Demonstration]:
    return [Demonstration(picture, "What?", f"answer {i}") for i, picture in enumerate(pictures)]


@pytest.fixture(params=["memory", "disk"])
def bank_of(request: pytest.FixtureRequest, tmp_path) -> Callable:
    return lambda encoder: open_bank(encoder, tmp_path / "bank" if request.param == "disk" else None)
