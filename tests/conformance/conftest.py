"""Each tiny backbone is loaded once."""

from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoModelForImageTextToText

from aim_backends.hf import TransformersBackend
from aim_backends.llava import LlavaBackend
from aim_sdk.testing.tiny import FAMILIES
from tests.conformance.families import BACKENDS, Family


@pytest.fixture(scope="session", params=FAMILIES)
def family(request: pytest.FixtureRequest, tiny: Callable[[str], Path]) -> Family:
    if request.param == "smolvlm":
        pytest.importorskip("num2words", reason="SmolVLM's processor needs num2words")
    folder = tiny(request.param)
    backend = BACKENDS[request.param].from_pretrained(str(folder), device="cpu")
    plain = AutoModelForImageTextToText.from_pretrained(folder).eval()
    # The same memory, not only the same numbers: matrix products may round differently where data lies differently.
    for mine, theirs in zip(plain.parameters(), backend.model.parameters(), strict=True):
        mine.data = theirs.data
    return Family(request.param, folder, backend, plain)


@pytest.fixture(scope="session")
def llava(tiny: Callable[[str], Path]) -> TransformersBackend:
    return LlavaBackend.from_pretrained(str(tiny("llava-1.5")), device="cpu")
