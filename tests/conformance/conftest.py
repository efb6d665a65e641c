"""Each tiny backbone is loaded once."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
from transformers import AutoModelForImageTextToText

from aim_backends.families.emu import see_each_alone
from aim_backends.families.hunyuan import number_in_each_prompt
from aim_backends.families.minimax import count_from_the_text
from aim_backends.families.table import family_of
from aim_backends.hf import TransformersBackend
from aim_backends.llava import LlavaBackend
from aim_sdk import get_backend
from aim_sdk.testing.tiny import NEEDS, TINY_MODELS
from tests.conformance.families import QUICK, SKIPS, Family


@pytest.fixture(
    scope="session",
    params=[pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in TINY_MODELS],
)
def family(request: pytest.FixtureRequest, tiny: Callable[[str], Path]) -> Family:
    if request.param in NEEDS:
        pytest.importorskip(NEEDS[request.param])
    folder = tiny(request.param)
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    backend = cast("type[TransformersBackend]", get_backend(family_of(kind).backend))
    loaded = backend.from_pretrained(str(folder), device="cpu")
    # Frozen like the backend's: torch multiplies by a matrix that wants gradients in another order.
    plain = AutoModelForImageTextToText.from_pretrained(folder).eval().requires_grad_(False)
    if kind == "minimax_m3_vl":
        count_from_the_text(plain)
    if kind == "hunyuan_vl":
        number_in_each_prompt(plain)
    if request.param == "emu3":
        see_each_alone(plain)
    return Family(request.param, folder, loaded, plain)


@pytest.fixture(autouse=True)
def _by_construction(request: pytest.FixtureRequest) -> None:
    """Skip what a family cannot do, and say why."""
    if "family" in request.fixturenames:
        family: Family = request.getfixturevalue("family")
        for name in (request.node.originalname, request.node.name):
            if reason := SKIPS.get((family.variant, name)):
                pytest.skip(reason)


@pytest.fixture(scope="session")
def llava(tiny: Callable[[str], Path]) -> TransformersBackend:
    return LlavaBackend.from_pretrained(str(tiny("llava-1.5")), device="cpu")
