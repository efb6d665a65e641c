"""Each tiny backbone is loaded once."""

from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoModelForImageTextToText

from aim_backends.hf import TransformersBackend
from aim_backends.llava import LlavaBackend
from aim_sdk.testing.tiny import FAMILIES
from tests.conformance.families import BACKENDS, SKIPS, Family


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reasons = {test: reason for (_, test), reason in SKIPS.items()}
    for item in items:
        if item.name in reasons:
            item.add_marker(pytest.mark.skip(reason=reasons[item.name]))


@pytest.fixture(scope="session", params=FAMILIES)
def family(request: pytest.FixtureRequest, tiny: Callable[[str], Path]) -> Family:
    if request.param == "smolvlm":
        pytest.importorskip("num2words", reason="SmolVLM's processor needs num2words")
    folder = tiny(request.param)
    backend = BACKENDS[request.param].from_pretrained(str(folder), device="cpu")
    # Frozen like the backend's: torch multiplies by a matrix that wants gradients in another order.
    plain = AutoModelForImageTextToText.from_pretrained(folder).eval().requires_grad_(False)
    return Family(request.param, folder, backend, plain)


@pytest.fixture(scope="session")
def llava(tiny: Callable[[str], Path]) -> TransformersBackend:
    return LlavaBackend.from_pretrained(str(tiny("llava-1.5")), device="cpu")
